package main

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	requestBytesMax = 3 << 19
	receivedMax     = requestBytesMax + 512<<10
)

// oversize sends writes around the limits of a request and of a message. Those nearer than this to
// the first limit are left out: etcd measures its log entry, which differs by the bytes of an id.
func (e *serial) oversize() error {
	const unsure = 64
	for _, length := range []int{requestBytesMax - 2*unsure, requestBytesMax, requestBytesMax + 1000,
		receivedMax - 100, receivedMax, receivedMax + 5000} {
		value := make([]byte, length)
		value[0], value[length-1] = byte(e.random.IntN(256)), 1
		if err := e.put(&pb.PutRequest{Key: []byte("large"), Value: value}); err != nil {
			return fmt.Errorf("a value of %d bytes: %w", length, err)
		}
	}
	half := make([]byte, requestBytesMax/2)
	for _, length := range []int{requestBytesMax/2 - 4*unsure, requestBytesMax / 2} {
		put := func(key string, value []byte) *pb.RequestOp {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
		}
		txn := &pb.TxnRequest{Success: []*pb.RequestOp{put("large/1", half), put("large/2", half[:length])}}
		if err := e.txn(txn); err != nil {
			return fmt.Errorf("two values of %d bytes: %w", length, err)
		}
	}
	if err := e.deleteRange(&pb.DeleteRangeRequest{Key: make([]byte, requestBytesMax)}); err != nil {
		return err
	}
	if err := e.rangeKeys(&pb.RangeRequest{Key: make([]byte, requestBytesMax)}); err != nil {
		return err
	}
	return e.deleteRange(&pb.DeleteRangeRequest{Key: []byte("large"), RangeEnd: []byte("largf")})
}

// fragments lets a watch hear of one transaction that is larger than a message of fragments may be,
// because each event brings the record before it.
func (e *serial) fragments() error {
	value := make([]byte, 700<<10)
	value[0], value[len(value)-1] = byte(e.random.IntN(256)), 1
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
	}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{put("large/2"), put("large/1")}}
	if err := e.txn(txn); err != nil {
		return err
	}
	stream, err := e.openStream()
	if err != nil {
		return err
	}
	defer func() {
		stream.close()
		e.streams = e.streams[:len(e.streams)-1]
	}()
	for _, fragment := range []bool{true, false} {
		request := &pb.WatchCreateRequest{Key: []byte("large/"), RangeEnd: []byte("large0"), PrevKv: true, Fragment: fragment}
		if err := e.createOn(stream, request); err != nil {
			return err
		}
	}
	if err := e.txn(txn); err != nil {
		return err
	}
	if err := e.drain(); err != nil {
		return err
	}
	for _, end := range stream.ends {
		end.mu.Lock()
		cuts := end.cuts
		end.mu.Unlock()
		if cuts != 1 {
			return fmt.Errorf("%s cut two events of 1.4 MB each %d times", end.side.name, cuts)
		}
	}
	return e.deleteRange(&pb.DeleteRangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")})
}
