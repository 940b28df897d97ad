package main

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// serial is an episode of one client that waits for every answer.
type serial struct {
	pair    *pair
	random  *random
	trace   *trace
	start   time.Time
	streams []*streamPair
	// Revisions that were compacted at.
	compactions map[int64]bool
	// Print differences of answers and go on, to see many at once.
	keepGoing bool
}

func runSerial(pair *pair, seed uint64, ops int, keepGoing bool) (*trace, error) {
	e := &serial{pair: pair, random: newRandom(seed), trace: newTrace(), start: time.Now(), keepGoing: keepGoing,
		compactions: map[int64]bool{}}
	defer func() {
		for _, stream := range e.streams {
			stream.close()
		}
	}()
	if err := e.rangeKeys(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}); err != nil {
		return e.trace, err
	}
	for n := range ops {
		if err := e.step(); err != nil {
			return e.trace, err
		}
		if n%40 == 39 {
			if err := e.drain(); err != nil {
				return e.trace, err
			}
		}
	}
	return e.trace, e.end()
}

func (e *serial) step() error {
	r := e.random
	switch kind := r.IntN(1000); {
	case kind < 250:
		return e.rangeKeys(r.rangeRequest())
	case kind < 490:
		return e.put(r.putRequest())
	case kind < 550:
		return e.deleteRange(r.deleteRequest())
	case kind < 770:
		return e.txn(r.txnRequest(3))
	case kind < 780:
		return e.txn(r.fullTxn())
	case kind < 800:
		return e.compact(r.compaction())
	case kind < 815:
		return e.hash(r.rev())
	case kind < 850:
		return e.grant(&pb.LeaseGrantRequest{ID: pick(r, 1+r.Int64N(40), 1+r.Int64N(40), -5, 1<<63-1), TTL: r.ttl()})
	case kind < 855:
		return e.grantChosen()
	case kind < 858:
		return e.grantTiny(pick(r, int64(0), -1, 1, 2, -1<<63))
	case kind < 863:
		_, err := e.grantAny(&pb.LeaseGrantRequest{ID: 1, TTL: pick(r, int64(9_000_000_001), 1<<63-1)})
		return err
	case kind < 880:
		return e.revoke(r.anyLease())
	case kind < 895:
		return e.timeToLive(r.anyLease(), r.one(2))
	case kind < 905:
		return e.leases()
	case kind < 912:
		return e.keepAlive([]int64{r.anyLease(), r.anyLease(), r.anyLease()})
	case kind < 917:
		return e.status()
	case kind < 920:
		return e.members()
	case kind < 922:
		return e.alarm(pick(r, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT))
	case kind < 923:
		return e.checkHealth()
	case kind < 924:
		return e.others()
	case kind < 925:
		return e.web()
	case kind < 926:
		if r.one(2) {
			return e.fragments()
		}
		return e.oversize()
	case kind < 927:
		return e.expiry()
	case kind < 929:
		return e.quiet()
	case kind < 980:
		return e.createWatch()
	case kind < 990:
		return e.cancelWatch()
	default:
		return e.progress()
	}
}

func (r *random) compaction() *pb.CompactionRequest {
	revision := r.past()
	if r.one(3) {
		revision = pick(r, r.revision, r.compacted, r.compacted-1, r.revision+1, 0, -1)
	}
	return &pb.CompactionRequest{Revision: revision, Physical: r.one(3)}
}

func (r *random) ttl() int64 { return pick(r, longTTL, longTTL, 100_000, int64(9_000_000_000)) }

func (r *random) anyLease() int64 {
	if len(r.leases) == 0 || r.one(5) {
		return pick(r, int64(0), 404, -404)
	}
	return pick(r, r.leases...)
}

// end compares all that is left: the watches, the keys at several revisions, the leases.
func (e *serial) end() error {
	if err := e.drain(); err != nil {
		return err
	}
	for _, revision := range []int64{0, e.random.past(), e.random.past(), max(e.random.compacted, 1)} {
		request := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: revision}
		if err := e.rangeKeys(request); err != nil {
			return err
		}
	}
	for _, id := range append([]int64{}, e.random.leases...) {
		if err := e.timeToLive(id, true); err != nil {
			return err
		}
		if err := e.revoke(id); err != nil {
			return err
		}
	}
	if err := e.leases(); err != nil {
		return err
	}
	return e.drain()
}
