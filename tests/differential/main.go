// differential: sends one seeded random stream of operations to kine2 and to a real etcd and
// compares every answer field by field, over raw gRPC and without a client's retries.
//
//	differential -kine2 target/release/kine2 [-seed N] [-duration 1m] [-mode serial|writers|both]
//
// A run is a row of episodes. Each starts both servers empty and has its own seed, which is
// printed; -seed N starts with that episode. A difference prints both answers and the last
// operations, and ends the program with 1. What is known to differ is written down, with its
// reasons, in docs/differences.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Operations of a serial episode, and of each writer of an episode of writers.
const (
	serialOps  = 1500
	writersOps = 400
	writers    = 6
)

func main() {
	program := flag.String("kine2", "target/release/kine2", "the program to compare")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano())%1_000_000_000, "seed of the first episode")
	duration := flag.Duration("duration", time.Minute, "no episode starts after this time")
	episodes := flag.Int("episodes", 0, "episodes to run, if not 0")
	mode := flag.String("mode", "both", "serial: one client; writers: several at once; both: in turn")
	ops := flag.Int("ops", serialOps, "operations of a serial episode")
	keepGoing := flag.Bool("keep-going", false, "print differences of answers and go on")
	flag.Parse()
	var interrupted atomic.Bool
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		interrupted.Store(true)
	}()
	start, total := time.Now(), totals{}
	for n := 0; ; n++ {
		enough := time.Since(start) > *duration
		if *episodes > 0 {
			enough = n >= *episodes
		}
		if n > 0 && enough || interrupted.Load() {
			break
		}
		runs := map[string]func(*pair, uint64) (*trace, error){
			"serial":  func(p *pair, seed uint64) (*trace, error) { return runSerial(p, seed, *ops, *keepGoing) },
			"writers": runWriters,
		}
		kind := *mode
		if kind == "both" {
			// By the seed, so that a seed replays the same kind.
			kind = "serial"
			if *seed%4 == 3 {
				kind = "writers"
			}
		}
		run, known := runs[kind]
		if !known {
			fatal(fmt.Errorf("-mode %s: serial, writers or both would be accepted", kind))
		}
		fmt.Printf("episode seed=%d mode=%s\n", *seed, kind)
		if err := episode(*program, *seed, run, &total); err != nil {
			fmt.Println(err)
			fmt.Printf("replay: differential -kine2 %s -mode %s -seed %d -episodes 1 -ops %d\n",
				*program, kind, *seed, *ops)
			os.Exit(1)
		}
		*seed++
	}
	fmt.Printf("no difference: %d episodes, %d operations and %d events compared in %s; %d inconclusive\n",
		total.episodes, total.operations, total.events, time.Since(start).Round(time.Second), total.inconclusive)
	for id, count := range total.known {
		fmt.Printf("known difference %s: seen %d times\n", id, count)
	}
}

type totals struct {
	episodes, operations, events, inconclusive int
	known                                      map[string]int
}

func episode(program string, seed uint64, run func(*pair, uint64) (*trace, error), total *totals) error {
	pair, err := startPair(program)
	if err != nil {
		fatal(err)
	}
	defer pair.stop()
	trace, err := run(pair, seed)
	total.episodes++
	if total.known == nil {
		total.known = map[string]int{}
	}
	total.operations += trace.operations
	total.events += trace.events
	for id, count := range trace.known {
		total.known[id] += count
	}
	var slow *tooSlow
	if errors.As(err, &slow) {
		fmt.Println("inconclusive:", err)
		total.inconclusive++
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s\nDIFFERENCE with seed %d: %w", trace.last(), seed, err)
	}
	return nil
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "differential:", err)
	os.Exit(2)
}
