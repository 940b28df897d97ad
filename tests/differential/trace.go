package main

import (
	"fmt"
	"strings"
)

// Operations shown with a difference.
const shownOps = 40

// trace remembers what an episode did.
type trace struct {
	operations, events int
	recent             []string
	known              map[string]int
}

func newTrace() *trace { return &trace{known: map[string]int{}} }

func (t *trace) note(text string) {
	t.operations++
	t.recent = append(t.recent, fmt.Sprintf("%6d %s", t.operations, text))
	if len(t.recent) > shownOps {
		t.recent = t.recent[1:]
	}
}

func (t *trace) last() string {
	return "last operations:\n" + strings.Join(t.recent, "\n")
}

// tooSlow is the end of an episode whose timing the machine did not keep.
type tooSlow struct{ what string }

func (e *tooSlow) Error() string { return e.what }

// difference is an answer that is not etcd's.
type difference struct{ what, etcd, kine2 string }

func (d *difference) Error() string {
	return fmt.Sprintf("%s\n--- etcd\n%s\n--- kine2\n%s\n--- the fields that differ\n%s", d.what, d.etcd, d.kine2,
		onlyIn("etcd:  ", d.etcd, d.kine2)+onlyIn("kine2: ", d.kine2, d.etcd))
}

// onlyIn is the lines of one text that the other does not have.
func onlyIn(name, text, other string) string {
	has := map[string]bool{}
	for line := range strings.SplitSeq(other, "\n") {
		has[line] = true
	}
	var only strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if !has[line] {
			only.WriteString(name + line + "\n")
		}
	}
	return only.String()
}
