package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (e *serial) grant(request *pb.LeaseGrantRequest) error {
	etcd, err := e.grantAny(request)
	if err == nil && etcd.err == nil {
		e.random.leases = append(e.random.leases, request.ID)
	}
	return err
}

func (e *serial) grantAny(request *pb.LeaseGrantRequest) (answer, error) {
	return call(e, "LeaseGrant", request,
		func(ctx context.Context, side *side, q *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
			return side.lease.LeaseGrant(ctx, q)
		})
}

// grantChosen lets each server choose the id.
func (e *serial) grantChosen() error {
	ids := [2]int64{}
	_, err := e.agree("LeaseGrant of a chosen id", func(ctx context.Context, side *side) (any, error) {
		response, err := side.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: longTTL})
		if err != nil {
			return nil, err
		}
		if response.ID <= 0 {
			return nil, fmt.Errorf("%s chose lease %d", side.name, response.ID)
		}
		ids[e.place(side)] = response.ID
		response.ID = 1
		return response, nil
	})
	if err != nil {
		return err
	}
	_, err = e.agree("LeaseRevoke of the chosen id", func(ctx context.Context, side *side) (any, error) {
		return side.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: ids[e.place(side)]})
	})
	return err
}

// grantTiny grants less than the shortest TTL, and revokes it before it can expire.
func (e *serial) grantTiny(ttl int64) error {
	const id = 77
	start := time.Now()
	if etcd, err := e.grantAny(&pb.LeaseGrantRequest{ID: id, TTL: ttl}); err != nil || etcd.err != nil {
		return err
	}
	err := e.revoke(id)
	if err != nil && time.Since(start) > 1500*time.Millisecond {
		return &tooSlow{"a lease of two seconds expired before its revocation: " + err.Error()}
	}
	return err
}

func (e *serial) revoke(id int64) error {
	etcd, err := call(e, "LeaseRevoke", &pb.LeaseRevokeRequest{ID: id},
		func(ctx context.Context, side *side, q *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
			return side.lease.LeaseRevoke(ctx, q)
		})
	e.learn(etcd)
	var left []int64
	for _, lease := range e.random.leases {
		if lease != id {
			left = append(left, lease)
		}
	}
	e.random.leases = left
	return err
}

func (e *serial) timeToLive(id int64, keys bool) error {
	_, err := call(e, "LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys},
		func(ctx context.Context, side *side, q *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
			response, err := side.lease.LeaseTimeToLive(ctx, q)
			if err != nil {
				return nil, err
			}
			sort.Slice(response.Keys, func(i, j int) bool { return string(response.Keys[i]) < string(response.Keys[j]) })
			// The clock runs on: what is left must only be near.
			longest := response.GrantedTTL
			if response.TTL > 0 && response.TTL <= longest && response.TTL >= longest-int64(time.Since(e.start).Seconds())-3 {
				response.TTL = longest
			}
			return response, nil
		})
	return err
}

func (e *serial) leases() error {
	_, err := e.agree("LeaseLeases", func(ctx context.Context, side *side) (any, error) {
		response, err := side.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		if err != nil {
			return nil, err
		}
		// etcd lists them by expiry.
		sort.Slice(response.Leases, func(i, j int) bool { return response.Leases[i].ID < response.Leases[j].ID })
		return response, nil
	})
	return err
}

// keepAlive sends some ids over one stream, closes it, and reads to its end.
func (e *serial) keepAlive(ids []int64) error {
	_, err := e.agree(fmt.Sprintf("LeaseKeepAlive %v", ids), func(ctx context.Context, side *side) (any, error) {
		stream, err := side.lease.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		var responses []*pb.LeaseKeepAliveResponse
		for _, id := range ids {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return nil, err
			}
			response, err := stream.Recv()
			if err != nil {
				return nil, err
			}
			responses = append(responses, response)
		}
		if err := stream.CloseSend(); err != nil {
			return nil, err
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the stream did not end but %v", err)
		}
		return responses, nil
	})
	return err
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
