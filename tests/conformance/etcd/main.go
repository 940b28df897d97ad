// etcd-one: one real etcd, the outside truth for tests and benchmarks; alone, or one member of several.
//
//	etcd-one --data-dir DIR --listen http://127.0.0.1:PORT
//	         [--name NAME --listen-peer http://127.0.0.1:PORT --cluster NAME=URL,NAME=URL,NAME=URL]
//
// Prints "ready" once it serves. fsync is on; the quota is 8 GiB.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	dir := flag.String("data-dir", "", "where its data go")
	listen := flag.String("listen", "http://127.0.0.1:2379", "client URL")
	name := flag.String("name", "default", "its name among the members")
	listenPeer := flag.String("listen-peer", "http://127.0.0.1:0", "URL for other members")
	cluster := flag.String("cluster", "", "all members with their peer URLs; itself if empty")
	quota := flag.Int64("quota", 8<<30, "quota in bytes")
	progress := flag.Duration("progress", 10*time.Minute, "watch progress notify interval")
	flag.Parse()
	client, err := url.Parse(*listen)
	check(err)
	peer, err := url.Parse(*listenPeer)
	check(err)
	config := embed.NewConfig()
	config.Dir = *dir
	config.Name = *name
	config.LogLevel = "error"
	config.QuotaBackendBytes = *quota
	config.WatchProgressNotifyInterval = *progress
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	if config.InitialCluster = *cluster; *cluster == "" {
		config.InitialCluster = config.InitialClusterFromName(config.Name)
	}
	etcd, err := embed.StartEtcd(config)
	check(err)
	<-etcd.Server.ReadyNotify()
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
	case err := <-etcd.Err():
		check(err)
	}
	etcd.Close()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd-one:", err)
		os.Exit(1)
	}
}
