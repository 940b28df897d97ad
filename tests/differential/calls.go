package main

import (
	"context"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
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

// learn takes the revision from an answer's header.
func (e *serial) learn(etcd answer) {
	if etcd.err != nil {
		return
	}
	if message, ok := etcd.message.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		e.random.revision = max(e.random.revision, message.GetHeader().GetRevision())
	}
}

func (e *serial) place(side *side) int {
	if side == e.pair.etcd {
		return 0
	}
	return 1
}
