package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// watchStream is one end: what arrived, with batches and fragments undone, and held to the rules
// that no comparison shows.
type watchStream struct {
	side   *side
	stream pb.Watch_WatchClient

	mu   sync.Mutex
	news chan struct{}
	// What was answered to requests to create, in order, and the ends of watchers.
	control []string
	cancels map[int64][]string
	created int
	// The id that the last request to create was answered with, -1 if it was refused.
	newest int64
	// Events by watcher, in order.
	events map[int64][]string
	// Progress for the whole stream: how often, and the last revision.
	progresses int
	progressed int64
	notified   map[int64]int
	last       map[int64]int64
	// The watcher whose response goes on in the next message.
	partial *int64
	// How often a response was cut.
	cuts       int
	broken     error
	alive      map[int64]bool
	eventCount int
}

func (w *watchStream) receive(ctx context.Context) {
	for {
		response, err := w.stream.Recv()
		w.mu.Lock()
		if err != nil {
			if ctx.Err() == nil {
				w.control = append(w.control, "the stream ended: "+failure(err))
			}
		} else if broken := w.on(response); broken != nil && w.broken == nil {
			w.broken = fmt.Errorf("%s broke a rule of watches: %w", w.side.name, broken)
		}
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (w *watchStream) on(response *pb.WatchResponse) error {
	id := response.WatchId
	if w.partial != nil && (id != *w.partial || len(response.Events) == 0) {
		return fmt.Errorf("a message of %d between fragments of %d", id, *w.partial)
	}
	switch {
	case response.Created:
		w.created++
		w.newest = id
		w.control = append(w.control, w.side.fields(response))
		if !response.Canceled {
			w.alive[id] = true
			w.last[id] = 0
		}
		return nil
	case response.Canceled:
		// When a compaction ends a watcher is each server's own affair.
		w.cancels[id] = append(w.cancels[id], w.side.fields(response))
		if !w.alive[id] {
			return fmt.Errorf("watcher %d is cancelled and was not there", id)
		}
		delete(w.alive, id)
		return nil
	case len(response.Events) == 0:
		return w.onProgress(response)
	}
	if !w.alive[id] {
		return fmt.Errorf("events of watcher %d, which is not there", id)
	}
	revision := response.Header.Revision
	for i, event := range response.Events {
		at := event.Kv.ModRevision
		sameTxn := i > 0 && response.Events[i-1].Kv.ModRevision == at
		continued := i == 0 && w.partial != nil
		if at < w.last[id] || at == w.last[id] && !sameTxn && !continued {
			return fmt.Errorf("watcher %d: an event of revision %d after one of, or progress at, %d", id, at, w.last[id])
		}
		if at > revision {
			return fmt.Errorf("watcher %d: an event of revision %d under a header of %d", id, at, revision)
		}
		w.last[id] = at
		w.events[id] = append(w.events[id], eventText(event))
	}
	w.eventCount += len(response.Events)
	w.partial = nil
	if response.Fragment {
		w.partial = &id
		w.cuts++
	}
	response.Events, response.WatchId, response.Fragment = nil, 0, false
	response.Header.Revision = 0
	if rest := w.side.fields(response); !strings.HasSuffix(rest, "revision 0)") {
		return fmt.Errorf("watcher %d: fields beside the events: %s", id, rest)
	}
	return nil
}

func (w *watchStream) onProgress(response *pb.WatchResponse) error {
	revision := response.Header.Revision
	if response.WatchId == -1 {
		w.progresses++
		w.progressed = revision
		for id := range w.alive {
			w.last[id] = max(w.last[id], revision)
		}
		return nil
	}
	if !w.alive[response.WatchId] {
		return fmt.Errorf("progress of watcher %d, which is not there", response.WatchId)
	}
	if revision < w.last[response.WatchId] {
		return fmt.Errorf("progress of watcher %d at %d after %d", response.WatchId, revision, w.last[response.WatchId])
	}
	w.notified[response.WatchId]++
	w.last[response.WatchId] = revision
	return nil
}

func eventText(event *mvccpb.Event) string {
	kv := func(kv *mvccpb.KeyValue) string {
		if kv == nil {
			return "none"
		}
		return fmt.Sprintf("(%s=%s create %d mod %d version %d lease %d)", quoted(kv.Key), quoted(kv.Value),
			kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	return fmt.Sprintf("%s %s before %s", event.Type, kv(event.Kv), kv(event.PrevKv))
}

// difference is the first thing that one end was told otherwise than the other.
func (w *watchStream) difference(kine2 *watchStream) error {
	if !slices.Equal(w.control, kine2.control) {
		return &difference{"control messages", strings.Join(w.control, "\n"), strings.Join(kine2.control, "\n")}
	}
	ids := map[int64]bool{}
	for _, told := range []map[int64][]string{w.events, kine2.events, w.cancels, kine2.cancels} {
		for id := range told {
			ids[id] = true
		}
	}
	for id := range ids {
		if a, b := w.cancels[id], kine2.cancels[id]; !slices.Equal(a, b) {
			return &difference{fmt.Sprintf("ends of watcher %d", id), strings.Join(a, "\n"), strings.Join(b, "\n")}
		}
		a, b := w.events[id], kine2.events[id]
		for i := range max(len(a), len(b)) {
			at := func(events []string) string {
				if i < len(events) {
					return events[i]
				}
				return "nothing more"
			}
			if at(a) != at(b) {
				return &difference{fmt.Sprintf("watcher %d: event %d since the last comparison", id, i), at(a), at(b)}
			}
		}
	}
	return nil
}

func (w *watchStream) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d created, alive %v, %v\n%s", w.created, w.alive, w.broken, strings.Join(w.control, "\n"))
}
