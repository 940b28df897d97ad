package main

import (
	"context"
	"fmt"
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

// expiry lets one lease run out, with keys that hang on it, left it, and came to it.
func (e *serial) expiry() error {
	const id, other, ttl = 1001, 1002, 4
	renewed := time.Now()
	for _, lease := range []int64{id, other} {
		request := &pb.LeaseGrantRequest{ID: lease, TTL: ttl}
		if lease == other {
			request.TTL = longTTL
		}
		if etcd, err := e.grantAny(request); err != nil || etcd.err != nil {
			return err
		}
	}
	key := func(n int) []byte { return fmt.Appendf(nil, "leased/%d", n) }
	put := func(n int, lease int64) error {
		return e.put(&pb.PutRequest{Key: key(n), Value: []byte("v"), Lease: lease})
	}
	count := 3 + e.random.IntN(5)
	for n := range count {
		if err := put(n, id); err != nil {
			return err
		}
	}
	steps := []func() error{
		func() error { return put(0, 0) },
		func() error { return put(1, other) },
		func() error { return e.deleteRange(&pb.DeleteRangeRequest{Key: key(2)}) },
		func() error { return e.timeToLive(id, true) },
	}
	if e.random.one(2) {
		steps = append(steps, func() error { renewed = time.Now(); return e.keepAlive([]int64{id}) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			if time.Since(renewed) > (ttl-1)*time.Second {
				return &tooSlow{"a lease expired while it was used: " + err.Error()}
			}
			return err
		}
	}
	gone := [2]time.Duration{}
	_, err := e.agree("wait for expiry", func(ctx context.Context, side *side) (any, error) {
		for {
			asked := time.Now()
			left, err := side.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
			if err != nil {
				return nil, err
			}
			if left.TTL == -1 {
				gone[e.place(side)] = time.Since(renewed)
				if asked.Sub(renewed) < (ttl-1)*time.Second {
					return nil, fmt.Errorf("the lease expired early, %s after its renewal was asked for", time.Since(renewed))
				}
				return "gone", nil
			}
			if time.Since(renewed) > (ttl+8)*time.Second {
				return nil, fmt.Errorf("the lease did not expire")
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	if err != nil {
		return err
	}
	if early := ttl*time.Second - gone[1]; early > 0 {
		return &difference{"a lease expired before its time", gone[0].String(), gone[1].String()}
	}
	// The keys that were left went in one transaction.
	if count > 3 {
		e.random.revision++
	}
	if err := e.keepAlive([]int64{id}); err != nil {
		return err
	}
	if err := e.rangeKeys(&pb.RangeRequest{Key: []byte("leased/"), RangeEnd: []byte("leased0")}); err != nil {
		return err
	}
	if err := e.revoke(other); err != nil {
		return err
	}
	if err := e.deleteRange(&pb.DeleteRangeRequest{Key: []byte("leased/"), RangeEnd: []byte("leased0")}); err != nil {
		return err
	}
	return e.revoke(id)
}
