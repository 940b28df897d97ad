package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	commandMax = 3 * time.Minute
	waitMax    = 15 * time.Second
	poll       = 50 * time.Millisecond
	endMax     = 5 * time.Second
)

// player runs the steps of a case against one server.
type player struct {
	kind    kind
	etcdctl string
	work    string
	servers []*server
	names   map[string]string
	running []*running
}

// play returns what was said at each step, masked.
func play(steps []step, kind kind, etcdctl, work string) (said []string, err error) {
	tmp, err := os.MkdirTemp(work, "tmp")
	if err != nil {
		return nil, err
	}
	p := player{kind: kind, etcdctl: etcdctl, work: work, names: map[string]string{"TMP": tmp}}
	defer func() {
		p.stopRunning()
		for _, server := range p.servers {
			err = errors.Join(err, server.stop())
		}
		err = errors.Join(err, os.RemoveAll(tmp))
	}()
	if err := p.start("URL"); err != nil {
		return nil, err
	}
	said = make([]string, len(steps))
	for i, step := range steps {
		text, err := p.step(step)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", step.line, err)
		}
		said[i] = mask(text, p.names, step.words)
	}
	return said, nil
}

func (p *player) start(name string) error {
	server, err := startServer(p.kind, p.work)
	if err != nil {
		return err
	}
	p.servers = append(p.servers, server)
	p.names[name] = server.url
	return nil
}

func (p *player) step(s step) (string, error) {
	switch s.verb {
	case "second":
		return "", p.start("SECOND")
	case "pause":
		time.Sleep(time.Duration(s.seconds * float64(time.Second)))
		return "", nil
	case "background":
		return "", p.background(s)
	case "wait":
		return p.wait(s.lines)
	case "until":
		return p.until(s)
	}
	said, err := p.run(s)
	if s.capture != "" && err == nil {
		err = p.capture(s.capture, said)
	}
	return said, err
}

func (p *player) command(ctx context.Context, s step) *exec.Cmd {
	var words []string
	// A second --endpoints would be added to the first.
	if !strings.HasPrefix(s.words[0], "--endpoints=") {
		words = append(words, "--endpoints="+p.names["URL"])
	}
	for _, word := range s.words {
		for name, value := range p.names {
			word = strings.ReplaceAll(word, "{"+name+"}", value)
		}
		words = append(words, word)
	}
	command := exec.CommandContext(ctx, p.etcdctl, words...)
	command.Stdin = strings.NewReader(s.input)
	return command
}

func (p *player) run(s step) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandMax)
	defer cancel()
	command := p.command(ctx, s)
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	err := command.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return "", err
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("it does not end: %q", output.String()+complaint.String())
	}
	said := output.String()
	if complaint.Len() > 0 {
		said += "error output:\n" + complaint.String()
	}
	if code := command.ProcessState.ExitCode(); code != 0 {
		said += fmt.Sprintf("exit status %d\n", code)
	}
	return said, nil
}

var leaseID = regexp.MustCompile(`lease ([0-9a-f]+)`)

func (p *player) capture(name, said string) error {
	match := leaseID.FindStringSubmatch(said)
	if match == nil {
		return fmt.Errorf("no lease in %q", said)
	}
	p.names[name] = match[1]
	return nil
}

func (p *player) until(s step) (string, error) {
	for begun := time.Now(); ; time.Sleep(poll) {
		said, err := p.run(s)
		if err != nil || strings.Count(said, "\n") == s.lines {
			return said, err
		}
		if time.Since(begun) > waitMax {
			return "", fmt.Errorf("not %d lines: %q", s.lines, said)
		}
	}
}

// running is a command that goes on beside the others.
type running struct {
	command *exec.Cmd
	input   *os.File
	mutex   sync.Mutex
	said    bytes.Buffer
	ended   chan struct{}
}

func (r *running) Write(bytes []byte) (int, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.said.Write(bytes)
}

func (r *running) text() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.said.String()
}

func (p *player) background(s step) error {
	r := &running{command: p.command(context.Background(), s), ended: make(chan struct{})}
	r.command.Stdout, r.command.Stderr = r, r
	if s.input != "" {
		// The input goes on: at its end the command would end.
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		defer read.Close()
		if _, err := write.WriteString(s.input); err != nil {
			return err
		}
		r.command.Stdin, r.input = read, write
	}
	if err := r.command.Start(); err != nil {
		return err
	}
	go func() {
		r.command.Wait()
		if r.input != nil {
			r.input.Close()
		}
		close(r.ended)
	}()
	p.running = append(p.running, r)
	return nil
}

func (p *player) wait(lines int) (string, error) {
	for begun := time.Now(); ; time.Sleep(poll) {
		said := ""
		for _, r := range p.running {
			said += r.text()
		}
		if strings.Count(said, "\n") >= lines {
			return p.stopRunning(), nil
		}
		if time.Since(begun) > waitMax {
			return "", fmt.Errorf("less than %d lines: %q", lines, said)
		}
	}
}

// stopRunning ends the latest first: it may be about what the others do.
func (p *player) stopRunning() (said string) {
	for _, r := range slices.Backward(p.running) {
		r.command.Process.Signal(syscall.SIGINT)
		select {
		case <-r.ended:
		case <-time.After(endMax):
			r.command.Process.Kill()
			<-r.ended
		}
		said = r.text() + said
	}
	p.running = nil
	return said
}
