package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// writer writes keys of its own, at both servers, without waiting for the other writers. The
// revisions it sees are its servers' own; all else must be equal.
type writer struct {
	pair   *pair
	random *rand.Rand
	prefix string
	// By side: the last modification of each key, for compares.
	modified [2]map[string]int64
	// By side: transactions that changed something.
	changes [2]int
}

// runWriters lets several writers write at once. Their answers, what a watch of each prefix tells,
// and the final state are compared; and each server's revision must count the changes exactly.
func runWriters(pair *pair, seed uint64) (*trace, error) {
	trace := newTrace()
	var all []*writer
	for n := range writers {
		all = append(all, &writer{
			pair: pair, random: rand.New(rand.NewPCG(seed, uint64(n))), prefix: fmt.Sprintf("w%d/", n),
			modified: [2]map[string]int64{{}, {}},
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	var tales [2][]*tale
	for i, side := range pair.sides() {
		told, err := listen(ctx, side, 0)
		if err != nil {
			return trace, err
		}
		tales[i] = append(tales[i], told)
	}
	failures := make(chan error, writers)
	var wait sync.WaitGroup
	for _, w := range all {
		wait.Go(func() {
			for range writersOps {
				if err := w.step(ctx); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	wait.Wait()
	trace.note(fmt.Sprintf("%d writers, %d operations each", writers, writersOps))
	trace.operations += writers * writersOps
	select {
	case err := <-failures:
		return trace, err
	default:
	}
	return trace, finish(ctx, pair, all, tales, trace)
}

func finish(ctx context.Context, pair *pair, all []*writer, tales [2][]*tale, trace *trace) error {
	var finals [2]string
	for i, side := range pair.sides() {
		changes := 0
		for _, w := range all {
			changes += w.changes[i]
		}
		whole, err := side.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil {
			return err
		}
		if whole.Header.Revision != int64(changes)+1 {
			return fmt.Errorf("%s is at revision %d after %d changes", side.name, whole.Header.Revision, changes)
		}
		var lines []string
		for _, kv := range whole.Kvs {
			lines = append(lines, bare(kv))
		}
		finals[i] = strings.Join(lines, "\n")
		// One that reads all of it from history must hear the same.
		late, err := listen(ctx, side, 1)
		if err != nil {
			return err
		}
		tales[i] = append(tales[i], late)
	}
	if finals[0] != finals[1] {
		return &difference{"final state", finals[0], finals[1]}
	}
	for i, side := range pair.sides() {
		whole, err := side.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
		if err != nil {
			return err
		}
		for _, tale := range tales[i] {
			if err := tale.until(whole.Header.Revision); err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
		}
	}
	for _, w := range all {
		live := tales[0][0].of(w.prefix)
		trace.events += len(tales[0][0].events[w.prefix])
		for i, side := range pair.sides() {
			for n, tale := range tales[i] {
				if told := tale.of(w.prefix); told != live {
					return &difference{fmt.Sprintf("watch %d of %s on %s", n, side.name, w.prefix), live, told}
				}
			}
		}
	}
	return nil
}

// step does one operation at both servers and compares what does not depend on the others.
func (w *writer) step(ctx context.Context) error {
	key := []byte(fmt.Sprintf("%s%d", w.prefix, w.random.IntN(12)))
	value := []byte(fmt.Sprint(w.random.IntN(1_000_000)))
	other := []byte(fmt.Sprintf("%s%d", w.prefix, 12+w.random.IntN(4)))
	kind, wrong, prev := w.random.IntN(10), w.random.IntN(4) == 0, w.random.IntN(2) == 0
	var texts [2]string
	var failures [2]error
	var wait sync.WaitGroup
	for i, side := range w.pair.sides() {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			compared := w.modified[i][string(key)]
			if wrong {
				compared++
			}
			texts[i], failures[i] = w.ask(ctx, i, side, kind, key, other, value, compared, prev)
		})
	}
	wait.Wait()
	for i, failed := range failures {
		if failed != nil {
			return fmt.Errorf("writer %s at %s: %w", w.prefix, w.pair.sides()[i].name, failed)
		}
	}
	if texts[0] != texts[1] {
		return &difference{fmt.Sprintf("writer %s, kind %d of %s", w.prefix, kind, key), texts[0], texts[1]}
	}
	return nil
}

func (w *writer) ask(ctx context.Context, i int, side *side, kind int, key, other, value []byte, compared int64, prev bool) (string, error) {
	changed := func(revision int64, keys ...[]byte) {
		w.changes[i]++
		for _, key := range keys {
			w.modified[i][string(key)] = revision
		}
	}
	switch {
	case kind < 3:
		response, err := side.kv.Put(ctx, &pb.PutRequest{Key: key, Value: value, PrevKv: prev})
		if err != nil {
			return "", err
		}
		changed(response.Header.Revision, key)
		return bare(response.PrevKv), nil
	case kind < 5:
		response, err := side.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key, PrevKv: prev})
		if err != nil {
			return "", err
		}
		if response.Deleted > 0 {
			changed(0, key)
		}
		w.modified[i][string(key)] = 0
		return fmt.Sprint(response.Deleted, bares(response.PrevKvs)), nil
	case kind < 6:
		response, err := side.kv.Range(ctx, &pb.RangeRequest{Key: []byte(w.prefix), RangeEnd: append([]byte(w.prefix), 0xff)})
		if err != nil {
			return "", err
		}
		return fmt.Sprint(response.Count, bares(response.Kvs)), nil
	}
	put := func(key []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
	}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
	request := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: compared}}},
		Success: []*pb.RequestOp{put(key), put(other), get}, Failure: []*pb.RequestOp{get},
	}
	response, err := side.kv.Txn(ctx, request)
	if err != nil {
		return "", err
	}
	if response.Succeeded {
		changed(response.Header.Revision, key, other)
		return fmt.Sprint("succeeded", bares(response.Responses[2].GetResponseRange().Kvs)), nil
	}
	return fmt.Sprint("failed", bares(response.Responses[0].GetResponseRange().Kvs)), nil
}

// bare is a record without what the order of writers decides.
func bare(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	return fmt.Sprintf("%q=%q version %d lease %d created-now %v", kv.Key, kv.Value, kv.Version, kv.Lease,
		kv.CreateRevision == kv.ModRevision)
}

func bares(kvs []*mvccpb.KeyValue) string {
	var all []string
	for _, kv := range kvs {
		all = append(all, bare(kv))
	}
	return strings.Join(all, "; ")
}

// tale is what a watch of everything tells, by the prefix of the writer.
type tale struct {
	mu       sync.Mutex
	events   map[string][]string
	revision int64
	failed   error
}

func listen(ctx context.Context, side *side, from int64) (*tale, error) {
	stream, err := side.watch.Watch(ctx)
	if err != nil {
		return nil, err
	}
	create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: from, PrevKv: true, Fragment: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return nil, err
	}
	if created, err := stream.Recv(); err != nil || !created.Created || created.Canceled {
		return nil, fmt.Errorf("create a watch at %s: %v %v", side.name, created, err)
	}
	t := &tale{events: map[string][]string{}}
	go func() {
		for {
			response, err := stream.Recv()
			t.mu.Lock()
			if err != nil {
				t.failed = err
				t.mu.Unlock()
				return
			}
			for _, event := range response.Events {
				t.on(event)
			}
			t.mu.Unlock()
		}
	}()
	return t, nil
}

func (t *tale) on(event *mvccpb.Event) {
	at := event.Kv.ModRevision
	if at < t.revision || at > t.revision+1 && t.revision > 0 {
		t.failed = fmt.Errorf("an event of revision %d after one of %d", at, t.revision)
	}
	together := " "
	if at == t.revision {
		together = "+"
	}
	t.revision = at
	key := event.Kv.Key
	prefix := string(key[:bytes.IndexByte(key, '/')+1])
	text := fmt.Sprintf("%s%s %s before %s", together, event.Type, bare(event.Kv), bare(event.PrevKv))
	t.events[prefix] = append(t.events[prefix], text)
}

func (t *tale) of(prefix string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.events[prefix], "\n")
}

// until waits for the events of a revision.
func (t *tale) until(revision int64) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		at, failed := t.revision, t.failed
		t.mu.Unlock()
		if failed != nil {
			return failed
		}
		if at >= revision {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a watch ends at revision %d and not at %d", at, revision)
		}
	}
}
