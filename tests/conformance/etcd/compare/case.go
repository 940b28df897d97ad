package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A case is read line by line; # begins a comment.
//
//	put a 1                 etcdctl put a 1; '...' and "..." hold words together
//	txn <<END               what follows, up to END, is standard input
//	L = lease grant 60      {L} is the lease from here on
//	& watch a               runs on; the next wait or the end stops it
//	wait 4                  until the running commands have said 4 lines together; shows them
//	until 2 get --prefix a  again and again until it says 2 lines; shows the last time
//	pause 1.5               seconds
//	second                  starts a second server of the same kind, {SECOND}
//	! text                  after a command: kine2 has to say this among others, instead of what
//	                        etcd says
//
// {URL} is the server's address, {TMP} a directory.
type step struct {
	line    int
	text    string
	verb    string // run, background, wait, until, pause, second
	words   []string
	input   string
	capture string
	lines   int
	seconds float64
	own     []string
}

// speaks tells whether there is something to compare.
func (s step) speaks() bool { return s.verb == "run" || s.verb == "wait" || s.verb == "until" }

var captured = regexp.MustCompile(`^([A-Z][A-Z0-9]*) = (.*)$`)

func readCase(path string) ([]step, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var steps []step
	lines := strings.Split(string(content), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if own, ok := strings.CutPrefix(line, "! "); ok {
			if len(steps) == 0 {
				return nil, fmt.Errorf("line %d: ! follows a command", i+1)
			}
			last := &steps[len(steps)-1]
			last.own = append(last.own, own)
			continue
		}
		step, err := readStep(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		step.line, step.text = i+1, line
		if last := len(step.words) - 1; last >= 0 && strings.HasPrefix(step.words[last], "<<") {
			end := strings.TrimPrefix(step.words[last], "<<")
			step.words = step.words[:last]
			for i++; i < len(lines) && lines[i] != end; i++ {
				step.input += lines[i] + "\n"
			}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func readStep(line string) (step, error) {
	verb, rest, _ := strings.Cut(line, " ")
	var err error
	s := step{verb: "run"}
	switch verb {
	case "second":
		s.verb = verb
		return s, nil
	case "pause":
		s.verb = verb
		s.seconds, err = strconv.ParseFloat(rest, 64)
		return s, err
	case "wait":
		s.verb = verb
		s.lines, err = strconv.Atoi(rest)
		return s, err
	case "until":
		s.verb = verb
		number, command, _ := strings.Cut(rest, " ")
		if s.lines, err = strconv.Atoi(number); err != nil {
			return s, err
		}
		line = command
	case "&":
		s.verb, line = "background", rest
	default:
		if match := captured.FindStringSubmatch(line); match != nil {
			s.capture, line = match[1], match[2]
		}
	}
	s.words, err = split(line)
	return s, err
}

// split takes a line apart at spaces that are not within quotes.
func split(line string) (words []string, err error) {
	var word strings.Builder
	quote, begun := rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, begun = c, true
		case quote == 0 && c == ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
