package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// How long a call, a start and a stop may take on a busy machine.
const patience = 20 * time.Second

// How often a quiet watcher that asked for it hears of progress, at both servers.
const progressInterval = 700 * time.Millisecond

const quotaBytes = 2 << 30

// side is one of the two servers and the clients of it.
type side struct {
	name        string
	url         string
	conn        *grpc.ClientConn
	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	health      grpc_health_v1.HealthClient
	auth        pb.AuthClient
	clusterID   uint64
	memberID    uint64
	stopServer  func()
}

// pair is the two servers, empty when they start.
type pair struct {
	etcd, kine2 *side
	dir         string
}

func (p *pair) sides() [2]*side { return [2]*side{p.etcd, p.kine2} }

func startPair(program string) (*pair, error) {
	dir, err := os.MkdirTemp("", "differential-")
	if err != nil {
		return nil, err
	}
	pair := &pair{dir: dir}
	if pair.etcd, err = startEtcd(filepath.Join(dir, "etcd")); err == nil {
		pair.kine2, err = startKine2(program, filepath.Join(dir, "kine2"))
	}
	if err != nil {
		pair.stop()
		return nil, err
	}
	return pair, nil
}

func (p *pair) stop() {
	for _, side := range p.sides() {
		if side != nil {
			side.conn.Close()
			side.stopServer()
		}
	}
	os.RemoveAll(p.dir)
}

func startEtcd(dir string) (*side, error) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "panic"
	config.QuotaBackendBytes = quotaBytes
	config.WatchProgressNotifyInterval = progressInterval
	client, err := freeURL()
	if err != nil {
		return nil, err
	}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(patience):
		etcd.Close()
		return nil, errors.New("etcd was not ready in time")
	}
	return connect("etcd", client.String(), etcd.Close)
}

func startKine2(program, dir string) (*side, error) {
	client, err := freeURL()
	if err != nil {
		return nil, err
	}
	command := exec.Command(program, "serve", "--single", "--data-dir", dir,
		"--listen-client", client.String(), "--quota-bytes", fmt.Sprint(quotaBytes),
		"--watch-progress-notify-interval", progressInterval.String(), "--log-level", "warn")
	var said bytes.Buffer
	command.Stderr = &said
	command.Env = append(os.Environ(), "KINE2_CONFIG=/dev/null")
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	stop := func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		var err error
		select {
		case err = <-ended:
		case <-time.After(patience):
			_ = command.Process.Kill()
			err = fmt.Errorf("it did not stop when asked: %w", <-ended)
		}
		if err != nil {
			fmt.Printf("kine2 ended badly: %v\n%s", err, &said)
		}
	}
	for deadline := time.Now().Add(patience); ; {
		if answer, err := http.Get(client.String() + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s ended: %v\n%s", program, err, &said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("%s was not ready in time", program)
		}
	}
	return connect("kine2", client.String(), stop)
}

func connect(name, address string, stop func()) (*side, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(parsed.Host,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		stop()
		return nil, err
	}
	side := &side{
		name: name, url: address, conn: conn, stopServer: stop,
		kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), lease: pb.NewLeaseClient(conn),
		cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn),
		health: grpc_health_v1.NewHealthClient(conn), auth: pb.NewAuthClient(conn),
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := side.maintenance.Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		conn.Close()
		stop()
		return nil, fmt.Errorf("status of %s: %w", name, err)
	}
	side.clusterID, side.memberID = status.Header.ClusterId, status.Header.MemberId
	return side, nil
}

func freeURL() (*url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return &url.URL{Scheme: "http", Host: listener.Addr().String()}, nil
}
