package main

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (e *serial) rangeKeys(request *pb.RangeRequest) error {
	etcd, err := call(e, "Range", request, func(ctx context.Context, side *side, q *pb.RangeRequest) (any, error) {
		response, err := side.kv.Range(ctx, q)
		if err == nil {
			normalRange(q, response)
		}
		return response, err
	})
	if err != nil {
		return err
	}
	return e.rangeStream(request, etcd)
}

func (e *serial) put(request *pb.PutRequest) error {
	etcd, err := call(e, "Put", request, func(ctx context.Context, side *side, q *pb.PutRequest) (*pb.PutResponse, error) {
		return side.kv.Put(ctx, q)
	})
	e.learn(etcd)
	return err
}

func (e *serial) deleteRange(request *pb.DeleteRangeRequest) error {
	etcd, err := call(e, "DeleteRange", request,
		func(ctx context.Context, side *side, q *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
			return side.kv.DeleteRange(ctx, q)
		})
	e.learn(etcd)
	return err
}

func (e *serial) txn(request *pb.TxnRequest) error {
	etcd, err := call(e, "Txn", request, func(ctx context.Context, side *side, q *pb.TxnRequest) (*pb.TxnResponse, error) {
		response, err := side.kv.Txn(ctx, q)
		if err == nil {
			normalTxn(q, response)
		}
		return response, err
	})
	e.learn(etcd)
	return err
}

func (e *serial) compact(request *pb.CompactionRequest) error {
	// What a watcher still reads of history would depend on who is faster.
	if err := e.drain(); err != nil {
		return err
	}
	etcd, err := call(e, "Compact", request,
		func(ctx context.Context, side *side, q *pb.CompactionRequest) (*pb.CompactionResponse, error) {
			return side.kv.Compact(ctx, q)
		})
	if etcd.err == nil {
		e.random.compacted = request.Revision
		e.compactions[request.Revision] = true
	}
	return err
}

func (e *serial) hash(revision int64) error {
	if e.compactions[revision] {
		// Difference D3: etcd answers with what it hashed while it compacted.
		e.trace.known["D3"]++
		return nil
	}
	_, err := e.agree(fmt.Sprintf("HashKV %d", revision), func(ctx context.Context, side *side) (any, error) {
		response, err := side.maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		if err != nil {
			return nil, err
		}
		response.Hash = 1
		return response, nil
	})
	return err
}
