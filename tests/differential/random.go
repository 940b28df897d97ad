package main

import (
	"bytes"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Leases of the stream live this long at least, so that none expires in an episode.
const longTTL = 5000

// random makes requests. What it makes depends on its seed and on what the servers answered.
type random struct {
	*rand.Rand
	keys      [][]byte
	revision  int64
	compacted int64
	leases    []int64
	values    [][]byte
}

func newRandom(seed uint64) *random {
	r := &random{Rand: rand.New(rand.NewPCG(seed, 0x6b696e6532)), revision: 1}
	for _, key := range []string{"a", "a\x00", "a\x00\x00", "aa", "ab", "b", "b\xff", "c", "\x00", "\x00\x00",
		"\xff", "\xff\xff", "\xff\x00", "é", "k/1", "k/10", "k/2", "k/3", "k/4", "k/5", "k/6", "k0", "/registry/pods/x",
		"/registry/pods/y", "compact_rev_key"} {
		r.keys = append(r.keys, []byte(key))
	}
	for range r.IntN(20) {
		key := make([]byte, 1+r.IntN(5))
		for i := range key {
			key[i] = byte(r.IntN(256))
		}
		r.keys = append(r.keys, key)
	}
	return r
}

// one is true once in n times.
func (r *random) one(n int) bool { return r.IntN(n) == 0 }

func pick[T any](r *random, from ...T) T { return from[r.IntN(len(from))] }

func (r *random) key() []byte {
	if r.one(150) {
		return nil
	}
	return bytes.Clone(pick(r, r.keys...))
}

func (r *random) keyRange() (key, end []byte) {
	key = r.key()
	switch r.IntN(10) {
	case 0, 1, 2, 3:
		return key, nil
	case 4:
		return key, []byte{0}
	case 5:
		return []byte{0}, []byte{0}
	case 6:
		return key, append(bytes.Clone(key), 0)
	case 7:
		return []byte("k/"), []byte("k0")
	default:
		return key, r.key()
	}
}

func (r *random) value() []byte {
	switch {
	case r.one(6):
		return nil
	case r.one(3) && len(r.values) > 0:
		return bytes.Clone(pick(r, r.values...))
	}
	length := r.IntN(12)
	if r.one(12) {
		length = r.IntN(4096)
	}
	if r.one(120) {
		length = r.IntN(300_000)
	}
	value := make([]byte, length)
	for i := range value {
		value[i] = byte(r.IntN(256))
	}
	if length < 100 {
		r.values = append(r.values, bytes.Clone(value))
		if len(r.values) > 20 {
			r.values = r.values[1:]
		}
	}
	return value
}

// rev is a revision to ask for: mostly 0 or in reach, now and then odd.
func (r *random) rev() int64 {
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		return 0
	case 4:
		return r.revision
	case 5:
		return r.compacted + int64(r.IntN(3)) - 1
	case 6:
		return r.revision + int64(r.IntN(4))
	case 7:
		return pick(r, int64(-1), -100, -1<<63, 1<<62, 1<<63-1, 1)
	default:
		return r.past()
	}
}

func (r *random) past() int64 {
	low := max(r.compacted, 1)
	return low + r.Int64N(r.revision-low+1)
}

func (r *random) leaseID() int64 {
	if r.one(25) {
		return pick(r, int64(404), -404, 1<<63-1, -1<<63)
	}
	if len(r.leases) == 0 || r.one(2) {
		return 0
	}
	return pick(r, r.leases...)
}

func (r *random) rangeRequest() *pb.RangeRequest {
	key, end := r.keyRange()
	request := &pb.RangeRequest{Key: key, RangeEnd: end, Revision: r.rev()}
	if r.one(2) {
		request.Limit = pick(r, int64(-1), 1, 1, 2, 3, 5, 100, -1<<63, 1<<63-1)
	}
	if r.one(3) {
		request.SortOrder = pb.RangeRequest_SortOrder(r.IntN(3))
		request.SortTarget = pb.RangeRequest_SortTarget(r.IntN(5))
		if r.one(20) {
			request.SortOrder = pick(r, pb.RangeRequest_SortOrder(3), -1, 99)
		}
		if r.one(20) {
			request.SortTarget = pick(r, pb.RangeRequest_SortTarget(5), -1, 99)
		}
	}
	if r.one(5) {
		for _, bound := range []*int64{&request.MinModRevision, &request.MaxModRevision,
			&request.MinCreateRevision, &request.MaxCreateRevision} {
			if r.one(2) {
				*bound = pick(r, r.past(), r.past(), r.revision+1, -1)
			}
		}
	}
	unordered := request.SortOrder == pb.RangeRequest_NONE && request.SortTarget != pb.RangeRequest_KEY
	if unordered && request.Limit > 0 {
		// Difference D2: etcd would sort only the first keys.
		request.Limit = 0
	}
	request.KeysOnly, request.CountOnly, request.Serializable = r.one(6), r.one(8), r.one(6)
	return request
}

func (r *random) putRequest() *pb.PutRequest {
	request := &pb.PutRequest{Key: r.key(), Value: r.value(), Lease: r.leaseID(), PrevKv: r.one(3)}
	if r.one(8) {
		request.IgnoreValue = true
		if !r.one(8) {
			request.Value = nil
		}
	}
	if r.one(8) {
		request.IgnoreLease = true
		if !r.one(8) {
			request.Lease = 0
		}
	}
	return request
}

func (r *random) deleteRequest() *pb.DeleteRangeRequest {
	key, end := r.keyRange()
	if len(end) > 0 && !r.one(5) {
		// Large ranges would leave the store empty most of the time.
		end = nil
	}
	return &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: r.one(2)}
}

func (r *random) compare() *pb.Compare {
	key, end := r.key(), []byte(nil)
	if r.one(4) {
		key, end = r.keyRange()
	}
	compare := &pb.Compare{
		Key: key, RangeEnd: end,
		Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5)),
	}
	if r.one(12) {
		return compare
	}
	target := compare.Target
	if r.one(25) {
		target = pb.Compare_CompareTarget(r.IntN(5))
	}
	switch target {
	case pb.Compare_VERSION:
		compare.TargetUnion = &pb.Compare_Version{Version: int64(r.IntN(4))}
	case pb.Compare_CREATE:
		compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: pick(r, 0, r.past(), r.revision)}
	case pb.Compare_MOD:
		compare.TargetUnion = &pb.Compare_ModRevision{ModRevision: pick(r, 0, r.past(), r.revision)}
	case pb.Compare_VALUE:
		compare.TargetUnion = &pb.Compare_Value{Value: r.value()}
	case pb.Compare_LEASE:
		compare.TargetUnion = &pb.Compare_Lease{Lease: r.leaseID()}
	}
	return compare
}

// txnRequest nests down to the given depth. Its keys are chosen so that most have no duplicates.
func (r *random) txnRequest(depth int) *pb.TxnRequest {
	request := &pb.TxnRequest{}
	for range pick(r, 0, 1, 1, 1, 2, 3) {
		request.Compare = append(request.Compare, r.compare())
	}
	request.Success, request.Failure = r.ops(depth), r.ops(depth)
	if deletesToTheEnd(request) {
		keepNothing(request)
	}
	return request
}

// deletesToTheEnd tells of the one delete that may share a transaction with a put of its keys. If
// that put wants to keep a value that is deleted by then, etcd crashes: difference D6.
func deletesToTheEnd(txn *pb.TxnRequest) bool {
	for _, op := range append(append([]*pb.RequestOp{}, txn.Success...), txn.Failure...) {
		if end := op.GetRequestDeleteRange().GetRangeEnd(); len(end) == 1 && end[0] == 0 {
			return true
		}
		if inner := op.GetRequestTxn(); inner != nil && deletesToTheEnd(inner) {
			return true
		}
	}
	return false
}

func keepNothing(txn *pb.TxnRequest) {
	for _, op := range append(append([]*pb.RequestOp{}, txn.Success...), txn.Failure...) {
		if put := op.GetRequestPut(); put != nil {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
		if inner := op.GetRequestTxn(); inner != nil {
			keepNothing(inner)
		}
	}
}

func (r *random) ops(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range pick(r, 0, 1, 1, 2, 3, 5) {
		op := &pb.RequestOp{}
		switch kind := r.IntN(20); {
		case kind < 7:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: r.txnRange()}
		case kind < 13:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: r.putRequest()}
		case kind < 16:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r.deleteRequest()}
		case kind < 19 && depth > 0:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: r.txnRequest(depth - 1)}
		case kind == 19 && r.one(12):
			// An operation that is none.
		default:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: r.putRequest()}
		}
		ops = append(ops, op)
	}
	return ops
}

// txnRange is a range whose revision mostly lets the transaction pass.
func (r *random) txnRange() *pb.RangeRequest {
	request := r.rangeRequest()
	if !r.one(4) {
		request.Revision = pick(r, 0, 0, r.past())
	}
	return request
}

// fullTxn is at the border of how many operations a transaction may have.
func (r *random) fullTxn() *pb.TxnRequest {
	ops := func(n int) []*pb.RequestOp {
		var ops []*pb.RequestOp
		for range n {
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("none"), PrevKv: true}}})
		}
		return ops
	}
	request := &pb.TxnRequest{}
	outer, inner := pick(r, 127, 128, 129, 100), pick(r, 0, 1, 2, 27, 28, 29)
	request.Success = ops(outer)
	if inner > 0 {
		request.Success[r.IntN(outer)] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{
			RequestTxn: &pb.TxnRequest{Failure: ops(inner)}}}
	}
	if r.one(3) {
		for range pick(r, 128, 129) {
			request.Compare = append(request.Compare, &pb.Compare{Key: []byte("none")})
		}
	}
	return request
}
