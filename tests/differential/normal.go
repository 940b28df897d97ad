package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"reflect"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
)

// fields writes a message as one line per field that is set; the lines of two equal messages are
// equal. Ids and terms of headers become words.
func (s *side) fields(message any) string {
	var lines []string
	s.flatten(reflect.ValueOf(message), "", &lines)
	return strings.Join(lines, "\n")
}

func (s *side) flatten(v reflect.Value, path string, lines *[]string) {
	add := func(format string, args ...any) {
		*lines = append(*lines, path+" = "+fmt.Sprintf(format, args...))
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return
		}
		if header, ok := v.Interface().(*pb.ResponseHeader); ok {
			add("%s", s.header(header))
			return
		}
		if v.Kind() == reflect.Interface {
			path += "(" + strings.TrimPrefix(v.Elem().Type().String(), "*etcdserverpb.") + ")"
		} else {
			add("{}")
		}
		s.flatten(v.Elem(), path, lines)
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Type().Field(i).IsExported() && name != "XXX_sizecache" && name != "XXX_NoUnkeyedLiteral" {
				s.flatten(v.Field(i), path+"."+name, lines)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Len() > 0 {
				add("%s", quoted(v.Bytes()))
			}
			return
		}
		for i := range v.Len() {
			s.flatten(v.Index(i), fmt.Sprintf("%s[%d]", path, i), lines)
		}
	case reflect.String:
		if v.Len() > 0 {
			add("%q", v.String())
		}
	default:
		if !v.IsZero() {
			add("%v", v.Interface())
		}
	}
}

func (s *side) header(header *pb.ResponseHeader) string {
	id := func(id, own uint64) string {
		switch id {
		case 0:
			return "none"
		case own:
			return "own"
		default:
			return fmt.Sprintf("foreign %x", id)
		}
	}
	term := "none"
	if header.RaftTerm != 0 {
		term = "set"
	}
	return fmt.Sprintf("header(cluster %s, member %s, term %s, revision %d)",
		id(header.ClusterId, s.clusterID), id(header.MemberId, s.memberID), term, header.Revision)
}

func quoted(b []byte) string {
	if len(b) > 80 {
		return fmt.Sprintf("%d bytes %q.. crc %08x", len(b), b[:16], crc32.ChecksumIEEE(b))
	}
	return fmt.Sprintf("%q", b)
}

// failure writes an error as its code and its exact text.
func failure(err error) string {
	status := status.Convert(err)
	return fmt.Sprintf("error %s %q", status.Code(), status.Message())
}

// Up to here Go's sort, which etcd uses, keeps ties in key order; beyond their order is chance.
const stableSortMax = 12

// normalRange puts ties of a sorted range in key order, where etcd's order of them is chance.
func normalRange(request *pb.RangeRequest, response *pb.RangeResponse) {
	byKey := request.SortTarget == pb.RangeRequest_KEY
	if response == nil || byKey || response.Count <= stableSortMax {
		return
	}
	value := func(kv *mvccpb.KeyValue) string {
		switch request.SortTarget {
		case pb.RangeRequest_VERSION:
			return fmt.Sprint(kv.Version)
		case pb.RangeRequest_CREATE:
			return fmt.Sprint(kv.CreateRevision)
		case pb.RangeRequest_MOD:
			return fmt.Sprint(kv.ModRevision)
		default:
			return string(kv.Value)
		}
	}
	kvs := response.Kvs
	for start := 0; start < len(kvs); {
		end := start + 1
		for end < len(kvs) && value(kvs[end]) == value(kvs[start]) {
			end++
		}
		ties := kvs[start:end]
		sort.Slice(ties, func(i, j int) bool { return bytes.Compare(ties[i].Key, ties[j].Key) < 0 })
		if end == len(kvs) && response.More {
			// Which of the ties the limit lets through is chance too.
			for i := range ties {
				ties[i] = &mvccpb.KeyValue{Key: []byte("one of the ties")}
			}
		}
		start = end
	}
}

func normalTxn(request *pb.TxnRequest, response *pb.TxnResponse) {
	if response == nil {
		return
	}
	ops := request.Failure
	if response.Succeeded {
		ops = request.Success
	}
	for i, op := range ops {
		if i >= len(response.Responses) {
			return
		}
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			normalRange(op.RequestRange, response.Responses[i].GetResponseRange())
		case *pb.RequestOp_RequestTxn:
			normalTxn(op.RequestTxn, response.Responses[i].GetResponseTxn())
		}
	}
}
