package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// rangeStream holds kine2's RangeStream, which this etcd does not have, against etcd's Range.
func (e *serial) rangeStream(request *pb.RangeRequest, etcd answer) error {
	if e.random.one(2) {
		return nil
	}
	what := "RangeStream " + shown(request)
	e.trace.note(what)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	whole, err := collect(ctx, e.pair.kine2, request)
	other := request.SortOrder != pb.RangeRequest_NONE &&
		(request.SortOrder != pb.RangeRequest_ASCEND || request.SortTarget != pb.RangeRequest_KEY)
	bounded := request.MinModRevision != 0 || request.MaxModRevision != 0 ||
		request.MinCreateRevision != 0 || request.MaxCreateRevision != 0
	expected := etcd.text
	if (other || bounded) && status.Code(etcd.err) != codes.InvalidArgument {
		if status.Code(err) != codes.Unimplemented {
			return fmt.Errorf("%s: %v where Unimplemented is due", what, err)
		}
		return nil
	}
	if request.SortOrder == pb.RangeRequest_NONE && request.SortTarget != pb.RangeRequest_KEY {
		// A target without an order sorts a Range, and is no order of a stream.
		return nil
	}
	got := failure(err)
	if err == nil {
		got = e.pair.kine2.fields(whole)
	}
	if got != expected {
		return &difference{what, expected, got}
	}
	return nil
}

// collect puts a stream's chunks together, holding them to their rules.
func collect(ctx context.Context, side *side, request *pb.RangeRequest) (*pb.RangeResponse, error) {
	encoded, err := request.Marshal()
	if err != nil {
		return nil, err
	}
	stream, err := side.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		"/etcdserverpb.KV/RangeStream", grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&encoded); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			if whole.Header == nil {
				return nil, errors.New("the stream ended without a header")
			}
			return whole, nil
		} else if err != nil {
			return nil, err
		}
		if whole.Header != nil {
			return nil, errors.New("a chunk after the last")
		}
		number, _, n := protowire.ConsumeTag(message)
		inner, m := protowire.ConsumeBytes(message[max(n, 0):])
		if number != 1 || n < 0 || m < 0 {
			return nil, fmt.Errorf("a chunk that is none: %q", message)
		}
		chunk := &pb.RangeResponse{}
		if err := chunk.Unmarshal(inner); err != nil {
			return nil, err
		}
		if chunk.Header == nil && (len(chunk.Kvs) == 0 || chunk.More || chunk.Count != 0) {
			return nil, errors.New("a chunk that is not the last is empty or tells of the whole")
		}
		whole.Kvs = append(whole.Kvs, chunk.Kvs...)
		whole.Header, whole.More, whole.Count = chunk.Header, chunk.More, chunk.Count
	}
}

// rawCodec passes encoded messages on.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
