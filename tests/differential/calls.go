package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// answer is what one side said: a message in fields, or an error; and the message itself.
type answer struct {
	text    string
	message any
	err     error
}

// both asks the two servers at the same time.
func (p *pair) both(ask func(context.Context, *side) (any, error)) (etcd, kine2 answer) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wait sync.WaitGroup
	for side, to := range map[*side]*answer{p.etcd: &etcd, p.kine2: &kine2} {
		wait.Go(func() {
			to.message, to.err = ask(ctx, side)
			if to.err != nil {
				to.text = failure(to.err)
			} else {
				to.text = side.fields(to.message)
			}
		})
	}
	wait.Wait()
	return etcd, kine2
}

// agree asks both and returns etcd's answer if kine2's is the same.
func (e *serial) agree(what string, ask func(context.Context, *side) (any, error)) (answer, error) {
	e.trace.note(what)
	etcd, kine2 := e.pair.both(ask)
	if etcd.text == kine2.text {
		return etcd, nil
	}
	if status.Code(etcd.err) == codes.DeadlineExceeded || status.Code(kine2.err) == codes.DeadlineExceeded {
		return etcd, &tooSlow{what + ": no answer in time: " + etcd.text + " / " + kine2.text}
	}
	found := &difference{what, etcd.text, kine2.text}
	if e.keepGoing {
		fmt.Printf("DIFFERENCE at operation %d: %v\n", e.trace.operations, found)
		return etcd, nil
	}
	return etcd, found
}

// call sends one request that both sides are asked alike.
func call[Q fmt.Stringer, A any](e *serial, name string, request Q,
	send func(context.Context, *side, Q) (A, error)) (answer, error) {
	return e.agree(name+" "+shown(request), func(ctx context.Context, side *side) (any, error) {
		return send(ctx, side, request)
	})
}

func shown(request fmt.Stringer) string {
	text := request.String()
	if len(text) > 900 {
		return fmt.Sprintf("%s.. (%d bytes of text)", text[:900], len(text))
	}
	return text
}

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

// learn takes the revision from an answer's header.
func (e *serial) learn(etcd answer) {
	if etcd.err != nil {
		return
	}
	if message, ok := etcd.message.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		e.random.revision = max(e.random.revision, message.GetHeader().GetRevision())
	}
}

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

func (e *serial) place(side *side) int {
	if side == e.pair.etcd {
		return 0
	}
	return 1
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

func (e *serial) status() error {
	_, err := e.agree("Status", func(ctx context.Context, side *side) (any, error) {
		status, err := side.maintenance.Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return nil, err
		}
		// Versions, sizes and counters are each server's own; that they are there is common.
		is := func(what string, ok bool) string { return fmt.Sprintf("%s %v", what, ok) }
		errors := fmt.Sprint(status.Errors)
		return []string{
			side.header(status.Header), is("version", status.Version != ""),
			is("sizes", status.DbSize > 0 && status.DbSizeInUse > 0 && status.DbSizeInUse <= status.DbSize),
			is("leads", status.Leader == side.memberID), is("term", status.RaftTerm > 0),
			is("applied", status.RaftIndex > 0 && status.RaftAppliedIndex > 0 && status.RaftAppliedIndex <= status.RaftIndex),
			// etcd brings its storage to the newest version some time after its start.
			is("learner", status.IsLearner), is("storage version", status.StorageVersion != ""), fmt.Sprint(status.DbSizeQuota),
			fmt.Sprint(status.DowngradeInfo), replaceID(errors, side.memberID),
		}, nil
	})
	return err
}

func (e *serial) members() error {
	_, err := e.agree("MemberList", func(ctx context.Context, side *side) (any, error) {
		response, err := side.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: e.random.one(2)})
		if err != nil {
			return nil, err
		}
		for _, member := range response.Members {
			if member.ID == side.memberID {
				member.ID = 1
			}
			if member.Name != "" {
				member.Name = "named"
			}
			if len(member.PeerURLs) > 0 {
				member.PeerURLs = []string{"some"}
			}
			if len(member.ClientURLs) == 1 && member.ClientURLs[0] == side.url {
				member.ClientURLs = []string{"the one that was dialled"}
			}
		}
		return response, nil
	})
	return err
}

// alarm raises an alarm at both, tries some writes and clears it.
func (e *serial) alarm(kind pb.AlarmType) error {
	ask := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType, own bool) error {
		_, err := e.agree(fmt.Sprintf("Alarm %s %s own=%v", action, kind, own), func(ctx context.Context, side *side) (any, error) {
			request := &pb.AlarmRequest{Action: action, Alarm: kind, MemberID: 4711}
			if own {
				request.MemberID = side.memberID
			}
			response, err := side.maintenance.Alarm(ctx, request)
			if err != nil {
				return nil, err
			}
			for _, alarm := range response.Alarms {
				if alarm.MemberID == side.memberID {
					alarm.MemberID = 1
				}
			}
			return response, nil
		})
		return err
	}
	own := !e.random.one(5)
	steps := []func() error{
		func() error { return ask(pb.AlarmRequest_ACTIVATE, kind, own) },
		func() error { return ask(pb.AlarmRequest_ACTIVATE, kind, own) },
		func() error {
			return ask(pb.AlarmRequest_GET, pick(e.random, kind, pb.AlarmType_NONE, pb.AlarmType_NOSPACE), own)
		},
		func() error { return e.put(e.random.putRequest()) },
		// Without transactions inside: difference D9.
		func() error { return e.txn(e.random.txnRequest(0)) },
		func() error { return e.txn(&pb.TxnRequest{}) },
		func() error { return e.deleteRange(e.random.deleteRequest()) },
		func() error { return e.grant(&pb.LeaseGrantRequest{ID: 1 + e.random.Int64N(40), TTL: longTTL}) },
		func() error { return e.revoke(1 + e.random.Int64N(40)) },
		func() error { return e.rangeKeys(e.random.rangeRequest()) },
		func() error { return e.compact(&pb.CompactionRequest{Revision: e.random.past()}) },
		func() error { return e.hash(0) },
		e.status,
		e.web,
		func() error { return ask(pb.AlarmRequest_DEACTIVATE, kind, own) },
		func() error { return ask(pb.AlarmRequest_DEACTIVATE, kind, own) },
		func() error { return ask(pb.AlarmRequest_GET, pb.AlarmType_NONE, own) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (e *serial) checkHealth() error {
	for _, service := range []string{"", "etcdserverpb.Health", "x"} {
		_, err := e.agree("Health.Check "+service, func(ctx context.Context, side *side) (any, error) {
			response, err := side.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil {
				return nil, err
			}
			return response.Status.String(), nil
		})
		if err != nil {
			return err
		}
		_, err = e.agree("Health.Watch "+service, func(ctx context.Context, side *side) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := side.health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil {
				return nil, err
			}
			response, err := stream.Recv()
			if err != nil {
				return nil, err
			}
			return response.Status.String(), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// others are calls whose answers hardly depend on the store.
func (e *serial) others() error {
	asks := map[string]func(context.Context, *side) (any, error){
		"Defragment": func(ctx context.Context, side *side) (any, error) {
			return side.maintenance.Defragment(ctx, &pb.DefragmentRequest{})
		},
		"AuthStatus": func(ctx context.Context, side *side) (any, error) {
			return side.auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
		},
		"Authenticate": func(ctx context.Context, side *side) (any, error) {
			return side.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "x"})
		},
		"AuthEnable": func(ctx context.Context, side *side) (any, error) {
			return side.auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
		},
		"MoveLeader to nobody": func(ctx context.Context, side *side) (any, error) {
			return side.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 4711})
		},
		"MoveLeader to itself": func(ctx context.Context, side *side) (any, error) {
			return side.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: side.memberID})
		},
		"MemberRemove of nobody": func(ctx context.Context, side *side) (any, error) {
			return side.cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 4711})
		},
		"MemberUpdate of nobody": func(ctx context.Context, side *side) (any, error) {
			return side.cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 4711, PeerURLs: []string{"http://127.0.0.1:1"}})
		},
		"MemberPromote of nobody": func(ctx context.Context, side *side) (any, error) {
			return side.cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 4711})
		},
		"MemberAdd of no URL": func(ctx context.Context, side *side) (any, error) {
			return side.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"nothing"}})
		},
	}
	for _, version := range []string{"3.5", "3.5.0", "3.6", "3.4", "x", "", "3", "3.5.x", "v3.5.0"} {
		asks["Downgrade VALIDATE "+version] = func(ctx context.Context, side *side) (any, error) {
			return side.maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: version})
		}
	}
	var names []string
	for name := range asks {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if _, err := e.agree(name, asks[name]); err != nil {
			return err
		}
	}
	return nil
}
