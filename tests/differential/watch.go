package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Most streams of an episode, and watchers of a stream.
const (
	streamsMax  = 4
	watchersMax = 12
)

// In this time etcd brings a watcher that starts in the past up to date, with much to spare.
const catchUpTime = 600 * time.Millisecond

// streamPair is one watch stream at each server.
type streamPair struct {
	ends   [2]*watchStream
	cancel context.CancelFunc
	// Watchers as the requests and etcd's answers have them.
	watchers map[int64]*pb.WatchCreateRequest
	// Watchers that began before the compacted revision and were ended for it. etcd keeps their ids
	// and never tells of progress again on their stream: difference D4.
	dead map[int64]bool
	// When the last watcher was created that starts in the past.
	behind time.Time
	// Answers of creation so far.
	created int
}

func (p *streamPair) close() { p.cancel() }

func (e *serial) openStream() (*streamPair, error) {
	e.trace.note("open a watch stream")
	ctx, cancel := context.WithCancel(context.Background())
	pair := &streamPair{cancel: cancel, watchers: map[int64]*pb.WatchCreateRequest{}, dead: map[int64]bool{}}
	for i, side := range e.pair.sides() {
		stream, err := side.watch.Watch(ctx)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("open a watch stream of %s: %w", side.name, err)
		}
		end := &watchStream{side: side, stream: stream, news: make(chan struct{}, 1), events: map[int64][]string{}, cancels: map[int64][]string{},
			notified: map[int64]int{}, last: map[int64]int64{}, alive: map[int64]bool{}}
		pair.ends[i] = end
		go end.receive(ctx)
	}
	e.streams = append(e.streams, pair)
	return pair, nil
}

// until waits until the two ends satisfy a condition, or too long.
func (p *streamPair) until(patience time.Duration, holds func() bool) bool {
	deadline := time.After(patience)
	for {
		for _, end := range p.ends {
			end.mu.Lock()
		}
		held := holds()
		for _, end := range p.ends {
			end.mu.Unlock()
		}
		if held {
			return true
		}
		select {
		case <-p.ends[0].news:
		case <-p.ends[1].news:
		case <-deadline:
			return false
		}
	}
}

func (p *streamPair) send(request *pb.WatchRequest) error {
	for _, end := range p.ends {
		if err := end.stream.Send(request); err != nil {
			return fmt.Errorf("send to a watch stream of %s: %w", end.side.name, err)
		}
	}
	return nil
}

func (e *serial) anyStream() (*streamPair, error) {
	if len(e.streams) == 0 || len(e.streams) < streamsMax && e.random.one(8) {
		return e.openStream()
	}
	return pick(e.random, e.streams...), nil
}

func (e *serial) createWatch() error {
	stream, err := e.anyStream()
	if err != nil {
		return err
	}
	if len(stream.watchers) >= watchersMax {
		return e.cancelOf(stream)
	}
	return e.createOn(stream, e.random.watchRequest(stream))
}

func (e *serial) createOn(stream *streamPair, request *pb.WatchCreateRequest) error {
	place := slices.Index(e.streams, stream)
	what := fmt.Sprintf("Watch on stream %d: %s", place, request)
	e.trace.note(what)
	if request.StartRevision > 0 && request.StartRevision <= e.random.revision {
		stream.behind = time.Now()
	}
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}
	if err := stream.send(create); err != nil {
		return err
	}
	stream.created++
	arrived := stream.until(patience, func() bool {
		return stream.ends[0].created == stream.created && stream.ends[1].created == stream.created
	})
	if !arrived {
		return &difference{what + " was not answered by both", stream.ends[0].story(), stream.ends[1].story()}
	}
	end := stream.ends[0]
	end.mu.Lock()
	defer end.mu.Unlock()
	switch {
	case end.newest == -1:
	case request.StartRevision > 0 && request.StartRevision < e.random.compacted:
		stream.dead[end.newest] = true
	default:
		stream.watchers[end.newest] = request
	}
	return nil
}

func (r *random) watchRequest(stream *streamPair) *pb.WatchCreateRequest {
	key, end := r.keyRange()
	request := &pb.WatchCreateRequest{Key: key, RangeEnd: end}
	if r.one(4) {
		request.Key, request.RangeEnd = nil, pick(r, nil, []byte{0}, []byte("b"))
	}
	switch r.IntN(12) {
	case 0, 1, 2:
		request.StartRevision = r.past()
	case 3:
		request.StartRevision = r.revision + int64(r.IntN(30))
	case 4:
		request.StartRevision = pick(r, -1, -1<<63, 1, r.compacted, r.compacted-1, r.compacted+1)
	case 5:
		request.StartRevision = pick(r, r.revision, r.revision+1, 1<<62)
	}
	if r.one(4) {
		request.WatchId = pick(r, int64(1), 2, 3, 7, -2, 1<<62, int64(len(stream.watchers)))
		late := request.StartRevision > 0 && request.StartRevision < r.compacted
		if late || stream.dead[request.WatchId] {
			// Difference D4: etcd would take the id for one in use ever after.
			request.WatchId = 0
		}
	}
	for _, filter := range []pb.WatchCreateRequest_FilterType{0, 1, 9} {
		if r.one(8) {
			request.Filters = append(request.Filters, filter)
		}
	}
	request.PrevKv, request.ProgressNotify, request.Fragment = r.one(2), r.one(4), r.one(3)
	return request
}

func (e *serial) cancelWatch() error {
	stream, err := e.anyStream()
	if err != nil {
		return err
	}
	return e.cancelOf(stream)
}

// cancelOf ends one watcher, or one that is not there, which is not answered.
func (e *serial) cancelOf(stream *streamPair) error {
	if err := e.drain(); err != nil {
		return err
	}
	id := pick(e.random, int64(-1), 99, 0)
	if stream.dead[id] {
		id = 99
	}
	if ids := stream.ids(); len(ids) > 0 && !e.random.one(6) {
		id = pick(e.random, ids...)
	}
	what := fmt.Sprintf("cancel watcher %d of stream %d", id, slices.Index(e.streams, stream))
	e.trace.note(what)
	cancel := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	if err := stream.send(cancel); err != nil {
		return err
	}
	gone := stream.until(patience, func() bool { return !stream.ends[0].alive[id] && !stream.ends[1].alive[id] })
	delete(stream.watchers, id)
	if !gone {
		return &difference{what + " did not end it", stream.ends[0].story(), stream.ends[1].story()}
	}
	return nil
}

func (p *streamPair) ids() []int64 {
	p.ends[0].mu.Lock()
	defer p.ends[0].mu.Unlock()
	var ids []int64
	for id := range p.ends[0].alive {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// drain waits until all watchers of both servers have told what they have to tell, and compares.
func (e *serial) drain() error {
	for n, stream := range e.streams {
		if err := e.drainStream(n, stream); err != nil {
			return err
		}
	}
	return nil
}

func (e *serial) drainStream(n int, stream *streamPair) error {
	asks := !e.awaitsFuture(stream) && len(stream.ids()) > 0
	if asks {
		if err := e.progressOf(n, stream); err != nil {
			return err
		}
	}
	// Where nobody may tell of progress, the time for catching up must do.
	if left := catchUpTime - time.Since(stream.behind); left > 0 && (!asks || len(stream.dead) > 0) {
		time.Sleep(left)
	}
	equal := stream.until(patience, func() bool { return stream.ends[0].difference(stream.ends[1]) == nil })
	for _, end := range stream.ends {
		end.mu.Lock()
		defer end.mu.Unlock()
		if end.broken != nil {
			return end.broken
		}
	}
	if !equal {
		return fmt.Errorf("stream %d: %w", n, stream.ends[0].difference(stream.ends[1]))
	}
	for id := range stream.watchers {
		if !stream.ends[0].alive[id] {
			delete(stream.watchers, id)
		}
	}
	// What was compared need not be kept.
	e.trace.events += stream.ends[0].eventCount
	for _, end := range stream.ends {
		end.eventCount = 0
		for id := range end.events {
			end.events[id] = nil
		}
		end.control, end.cancels = nil, map[int64][]string{}
	}
	return nil
}

func (e *serial) awaitsFuture(stream *streamPair) bool {
	for _, request := range stream.watchers {
		if request.StartRevision > e.random.revision {
			return true
		}
	}
	return false
}

func (e *serial) progress() error {
	if len(e.streams) == 0 {
		return nil
	}
	n := e.random.IntN(len(e.streams))
	stream := e.streams[n]
	if len(stream.ids()) > 0 && !e.awaitsFuture(stream) {
		if len(stream.dead) > 0 {
			e.trace.known["D4"]++
		}
		return e.progressOf(n, stream)
	}
	// Nobody may answer: there is no watcher, or one whose start is yet to come.
	e.trace.note(fmt.Sprintf("ask for progress on stream %d, in vain", n))
	before := [2]int{}
	stream.until(0, func() bool {
		before = [2]int{stream.ends[0].progresses, stream.ends[1].progresses}
		return true
	})
	if err := stream.send(progressRequest); err != nil {
		return err
	}
	told := stream.until(150*time.Millisecond, func() bool { return stream.ends[0].progresses > before[0] })
	if told {
		return errors.New("etcd tells of progress where none was expected")
	}
	early := false
	stream.until(0, func() bool { early = stream.ends[1].progresses > before[1]; return true })
	if early {
		return fmt.Errorf("kine2 tells of progress at %d where etcd does not", e.random.revision)
	}
	return nil
}

var progressRequest = &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}

// progressOf asks both ends for progress until they tell of the newest revision. etcd drops a
// request that comes before all watchers are in sync, so it is repeated.
func (e *serial) progressOf(n int, stream *streamPair) error {
	what := fmt.Sprintf("progress on stream %d", n)
	e.trace.note(what)
	before := [2]int{}
	stream.until(0, func() bool {
		before = [2]int{stream.ends[0].progresses, stream.ends[1].progresses}
		return true
	})
	told := func() bool {
		for i, end := range stream.ends {
			if i == 0 && len(stream.dead) > 0 {
				continue
			}
			if end.progresses == before[i] || end.progressed != e.random.revision {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(patience); ; {
		if err := stream.send(progressRequest); err != nil {
			return err
		}
		if stream.until(100*time.Millisecond, told) {
			return nil
		}
		// A compaction may have ended its last watcher meanwhile.
		none := false
		stream.until(0, func() bool { none = len(stream.ends[0].alive) == 0 && len(stream.ends[1].alive) == 0; return true })
		if none {
			return nil
		}
		if time.Now().After(deadline) {
			return &difference{fmt.Sprintf("%s at revision %d", what, e.random.revision),
				fmt.Sprintf("last told %d\n%s", stream.ends[0].progressed, stream.ends[0].story()),
				fmt.Sprintf("last told %d\n%s", stream.ends[1].progressed, stream.ends[1].story())}
		}
	}
}

// quiet writes nothing for some time: every watcher in sync that asked for it hears of progress.
func (e *serial) quiet() error {
	if err := e.drain(); err != nil {
		return err
	}
	e.trace.note("quiet, so that watchers hear of progress")
	for n, stream := range e.streams {
		waiting := map[int64]bool{}
		before := [2]map[int64]int{{}, {}}
		stream.until(0, func() bool {
			for id, request := range stream.watchers {
				if request.ProgressNotify && request.StartRevision <= e.random.revision {
					waiting[id] = true
				}
			}
			for i, end := range stream.ends {
				for id, count := range end.notified {
					before[i][id] = count
				}
			}
			return true
		})
		told := stream.until(patience, func() bool {
			for i, end := range stream.ends {
				for id := range waiting {
					if end.notified[id] == before[i][id] || end.last[id] != e.random.revision {
						return false
					}
				}
			}
			return true
		})
		if !told {
			return &difference{fmt.Sprintf("stream %d: progress unasked of %v", n, waiting), stream.ends[0].story(), stream.ends[1].story()}
		}
	}
	return nil
}
