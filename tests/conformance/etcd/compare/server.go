package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const startMax = 30 * time.Second

type kind struct {
	name      string
	program   string
	arguments func(dir, url string) []string
}

type server struct {
	command *exec.Cmd
	url     string
	dir     string
}

// startServer starts one on a free loopback port; it returns when the port answers.
func startServer(kind kind, work string) (*server, error) {
	dir, err := os.MkdirTemp(work, kind.name)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://" + address, dir: dir}
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.command = exec.Command(kind.program, kind.arguments(dir, s.url)...)
	s.command.Stdout, s.command.Stderr = log, log
	// It ends with this program, however that ends: with the thread that started it, to be exact,
	// which main keeps.
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	for begun := time.Now(); ; time.Sleep(poll) {
		if connection, err := net.Dial("tcp", address); err == nil {
			connection.Close()
			return s, nil
		}
		if time.Since(begun) > startMax {
			s.command.Process.Kill()
			return nil, fmt.Errorf("%s does not listen after %s, see %s.log", kind.name, startMax, dir)
		}
	}
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (s *server) stop() error {
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.command.Wait(); err != nil && !strings.Contains(err.Error(), "terminated") {
		return fmt.Errorf("the server ended with %w, see %s.log", err, s.dir)
	}
	return os.RemoveAll(s.dir)
}
