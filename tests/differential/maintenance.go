package main

import (
	"context"
	"fmt"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/health/grpc_health_v1"
)

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
			is("sizes", status.DbSize > 0 && status.DbSizeInUse >= 0 && status.DbSizeInUse <= status.DbSize),
			is("leads", status.Leader == side.memberID), is("term", status.RaftTerm > 0),
			is("applied", status.RaftAppliedIndex <= status.RaftIndex),
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
		// Without transactions inside: difference D1.
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
	for _, method := range []string{"/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Range", "/nothing"} {
		asks["a call of "+method] = func(ctx context.Context, side *side) (any, error) {
			return nil, side.conn.Invoke(ctx, method, &pb.RangeRequest{Key: []byte("a")}, &pb.RangeResponse{})
		}
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
