// etcdctl-compare: one etcdctl against kine2 and against a real etcd of its version; what it says,
// on standard output and error, and its exit status have to be the same.
//
//	etcdctl-compare -etcdctl PATH -etcd PATH -kine2 PATH -work DIR CASE.txt...
//
// The cases are transcripts of commands (case.go tells the form). Each case has fresh servers.
// What differs by nature (ids, sizes, times, terms of raft) is masked (mask.go); where kine2 says
// something else on purpose, the case holds what it has to say.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

func init() { runtime.LockOSThread() }

func main() {
	etcdctl := flag.String("etcdctl", "", "program of the client")
	etcd := flag.String("etcd", "", "program etcd-one")
	kine2 := flag.String("kine2", "", "program kine2")
	work := flag.String("work", os.TempDir(), "directory for data and logs")
	verbose := flag.Bool("v", false, "show every command and what was said")
	flag.Parse()
	kinds := []kind{
		{name: "etcd", program: *etcd, arguments: func(dir, url string) []string {
			return []string{"--data-dir", dir, "--listen", url}
		}},
		{name: "kine2", program: *kine2, arguments: func(dir, url string) []string {
			return []string{"serve", "--single", "--name", "default", "--data-dir", dir, "--listen-client", url}
		}},
	}
	var total tally
	for _, path := range flag.Args() {
		one, err := runCase(path, kinds, *etcdctl, *work, *verbose)
		if err != nil {
			fmt.Fprintf(os.Stderr, "etcdctl-compare: %s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Printf("%-12s %s\n", strings.TrimSuffix(filepath.Base(path), ".txt"), one)
		total.add(one)
	}
	fmt.Printf("%-12s %s, in %d cases\n", "total", total, flag.NArg())
	if total.wrong > 0 || total.commands == 0 {
		os.Exit(1)
	}
}

type tally struct{ commands, onPurpose, wrong int }

func (t *tally) add(other tally) {
	t.commands += other.commands
	t.onPurpose += other.onPurpose
	t.wrong += other.wrong
}

func (t tally) String() string {
	return fmt.Sprintf("%d commands, %d with an answer of kine2's own, %d wrong", t.commands, t.onPurpose, t.wrong)
}

// runCase runs the steps against each kind of server, one kind after the other, and compares.
func runCase(path string, kinds []kind, etcdctl, work string, verbose bool) (tally, error) {
	steps, err := readCase(path)
	if err != nil {
		return tally{}, err
	}
	said := make([][]string, len(kinds))
	for i, kind := range kinds {
		if said[i], err = play(steps, kind, etcdctl, work); err != nil {
			return tally{}, fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	var count tally
	for i, step := range steps {
		if !step.speaks() {
			continue
		}
		count.commands++
		want, got := said[0][i], said[1][i]
		wrong := got != want
		if step.own != nil {
			count.onPurpose++
			want = strings.Join(step.own, "\n") + "\n"
			wrong = slices.ContainsFunc(step.own, func(part string) bool { return !strings.Contains(got, part) })
		}
		if wrong {
			count.wrong++
		}
		if wrong || verbose {
			fmt.Printf("%s:%d: %s\n--- %s\n%s--- kine2\n%s", path, step.line, step.text, wanted(step), want, got)
		}
	}
	return count, nil
}

func wanted(s step) string {
	if s.own != nil {
		return "kine2 has to say"
	}
	return "etcd"
}
