package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
)

const (
	firstRevision = 2
	catchUpMax    = 30 * time.Second
	catchUpPoll   = 100 * time.Millisecond
)

// history is everything that was applied, by revision, as one watch over all keys told it.
type history struct {
	mutex  sync.Mutex
	events map[int64][]*clientv3.Event
	// The same as a client's report has it.
	answers []model.WatchResponse
	begun   time.Time
	newest  int64
	failed  error
	client  *clientv3.Client
}

// follow opens the watch; it returns when the server confirmed it.
func follow(endpoints []string) (*history, error) {
	watcher, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	h := &history{events: map[int64][]*clientv3.Event{}, begun: time.Now(), client: watcher}
	answers := watcher.Watch(context.Background(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(firstRevision), clientv3.WithCreatedNotify())
	created := <-answers
	if err := created.Err(); err != nil {
		return nil, err
	}
	go func() {
		for answer := range answers {
			h.take(answer)
		}
	}()
	return h, nil
}

func (h *history) take(answer clientv3.WatchResponse) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	reported := model.WatchResponse{Revision: answer.Header.Revision, Time: time.Since(h.begun)}
	for _, event := range answer.Events {
		reported.Events = append(reported.Events, asReported(event))
		revision := event.Kv.ModRevision
		if revision < h.newest {
			h.failed = fmt.Errorf("the full watch got revision %d after %d", revision, h.newest)
		}
		h.events[revision] = append(h.events[revision], event)
		h.newest = revision
	}
	h.answers = append(h.answers, reported)
	if err := answer.Err(); err != nil {
		h.failed = fmt.Errorf("the full watch ended: %w", err)
	}
}

func asReported(event *clientv3.Event) model.WatchEvent {
	reported := model.WatchEvent{PersistedEvent: model.PersistedEvent{Revision: event.Kv.ModRevision, IsCreate: event.IsCreate()}}
	reported.Type, reported.Key = model.DeleteOperation, string(event.Kv.Key)
	if event.Type == clientv3.EventTypePut {
		reported.Type, reported.Value = model.PutOperation, model.ToValueOrHash(string(event.Kv.Value))
	}
	return reported
}

// report is the full watch as one more client's. With it the validators know the revision of every
// write whose answer was lost; without, their search for a linear order may take forever.
func (h *history) report(client int) report.ClientReport {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	request := model.WatchRequest{WithPrefix: true, Revision: firstRevision}
	return report.ClientReport{ClientID: client, Watch: []model.WatchOperation{{Request: request, Responses: h.answers}}}
}

// waitFor waits until the watch has seen a revision, and ends it.
func (h *history) waitFor(revision int64) error {
	defer h.client.Close()
	for begun := time.Now(); ; time.Sleep(catchUpPoll) {
		h.mutex.Lock()
		newest, failed := h.newest, h.failed
		h.mutex.Unlock()
		if failed != nil {
			return failed
		}
		if newest >= revision {
			return nil
		}
		if time.Since(begun) > catchUpMax {
			return fmt.Errorf("the full watch is at revision %d, the last write was %d", newest, revision)
		}
	}
}

// requests is a list of requests that brings a model through the same revisions.
func (h *history) requests(reports []report.ClientReport) ([]model.EtcdRequest, error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	rebuild := rebuild{leaseOf: map[string]int64{}, granted: map[int64]bool{}, txns: txnRevisions(reports), revoked: revokedLeases(reports)}
	for revision := int64(firstRevision); revision <= h.newest; revision++ {
		events, ok := h.events[revision]
		if !ok {
			return nil, fmt.Errorf("the full watch saw revision %d, but not %d", h.newest, revision)
		}
		rebuild.add(revision, events)
	}
	fmt.Printf("full watch: revisions %d to %d without a gap, %d leases, %d revoked with keys\n",
		firstRevision, h.newest, len(rebuild.granted), rebuild.revokes)
	return rebuild.requests, nil
}

type rebuild struct {
	requests []model.EtcdRequest
	leaseOf  map[string]int64
	granted  map[int64]bool
	txns     map[int64]bool
	revoked  map[int64]bool
	revokes  int
}

func (r *rebuild) add(revision int64, events []*clientv3.Event) {
	if lease := r.revokedBy(revision, events); lease != 0 {
		r.requests = append(r.requests, model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: &model.LeaseRevokeRequest{LeaseID: lease}})
		for _, event := range events {
			delete(r.leaseOf, string(event.Kv.Key))
		}
		r.revokes++
		return
	}
	txn := &model.TxnRequest{}
	for _, event := range events {
		key := string(event.Kv.Key)
		operation := model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: key}}
		delete(r.leaseOf, key)
		if event.Type == clientv3.EventTypePut {
			lease := event.Kv.Lease
			r.grant(lease)
			if lease != 0 {
				r.leaseOf[key] = lease
			}
			value := model.ToValueOrHash(string(event.Kv.Value))
			operation = model.EtcdOperation{Type: model.PutOperation, Put: model.PutOptions{Key: key, Value: value, LeaseID: lease}}
		}
		txn.OperationsOnSuccess = append(txn.OperationsOnSuccess, operation)
	}
	r.requests = append(r.requests, model.EtcdRequest{Type: model.Txn, Txn: txn})
}

// grant puts the grant of a lease right before its first use: it has no revision of its own.
func (r *rebuild) grant(lease int64) {
	if lease != 0 && !r.granted[lease] {
		r.granted[lease] = true
		r.requests = append(r.requests, model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: &model.LeaseGrantRequest{LeaseID: lease}})
	}
}

// revokedBy is the lease whose end deleted these keys, or 0: some client asked to revoke it, no
// transaction was answered with this revision, and the keys are all that it had.
func (r *rebuild) revokedBy(revision int64, events []*clientv3.Event) int64 {
	lease := r.leaseOf[string(events[0].Kv.Key)]
	if lease == 0 || !r.revoked[lease] || r.txns[revision] {
		return 0
	}
	keys := 0
	for _, attached := range r.leaseOf {
		if attached == lease {
			keys++
		}
	}
	for _, event := range events {
		if event.Type != clientv3.EventTypeDelete || r.leaseOf[string(event.Kv.Key)] != lease {
			return 0
		}
		keys--
	}
	if keys != 0 {
		return 0
	}
	return lease
}

// txnRevisions are the revisions that a transaction which may write was answered with.
func txnRevisions(reports []report.ClientReport) map[int64]bool {
	revisions := map[int64]bool{}
	for request, response := range operations(reports) {
		if request.Type == model.Txn && response.Error == "" && wrote(request.Txn, response.Txn) {
			revisions[response.Revision] = true
		}
	}
	return revisions
}

func wrote(request *model.TxnRequest, response *model.TxnResponse) bool {
	taken := request.OperationsOnSuccess
	if response.Failure {
		taken = request.OperationsOnFailure
	}
	for i, operation := range taken {
		if operation.Type == model.PutOperation || response.Results[i].Deleted > 0 {
			return true
		}
	}
	return false
}

func revokedLeases(reports []report.ClientReport) map[int64]bool {
	leases := map[int64]bool{}
	for request := range operations(reports) {
		if request.Type == model.LeaseRevoke {
			leases[request.LeaseRevoke.LeaseID] = true
		}
	}
	return leases
}

func operations(reports []report.ClientReport) func(yield func(model.EtcdRequest, model.MaybeEtcdResponse) bool) {
	return func(yield func(model.EtcdRequest, model.MaybeEtcdResponse) bool) {
		for _, client := range reports {
			for _, operation := range client.KeyValue {
				if !yield(operation.Input.(model.EtcdRequest), operation.Output.(model.MaybeEtcdResponse)) {
					return
				}
			}
		}
	}
}
