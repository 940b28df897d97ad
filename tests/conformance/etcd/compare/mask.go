package main

import (
	"regexp"
	"slices"
	"strings"
)

type rule struct {
	pattern *regexp.Regexp
	with    string
}

// What two servers of the same state differ in. Revisions, versions, counts and every error stay.
var rules = []rule{
	// A server's address, also of peers; members' names are the same.
	{regexp.MustCompile(`(https?://)?(127\.0\.0\.1|localhost):\d+`), "ADDRESS"},
	{regexp.MustCompile(`unix://\S+\.sock`), "ADDRESS"},
	// Ids of cluster, member and lease: hexadecimal, or decimal in JSON and in -w fields.
	{regexp.MustCompile(`\b[0-9a-f]{14,16}\b`), "ID"},
	{regexp.MustCompile(`\b\d{16,20}\b`), "ID"},
	// Raft's position and sizes.
	{regexp.MustCompile(`("(?:raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota|hash)":)\d+`), "${1}N"},
	{regexp.MustCompile(`("(?:RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota|Hash|Term)" : )\d+`), "${1}N"},
	{regexp.MustCompile(`\b\d+(\.\d+)? [kMG]?B\b`), "SIZE"},
	{regexp.MustCompile(`\b\d+%`), "SHARE"},
	// The version of etcd that a server speaks for, down to the patch.
	{regexp.MustCompile(`\b3\.6\.\d+\b`), "3.6.x"},
	// Times.
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":N`},
	{regexp.MustCompile(`"TTL" : \d+`), `"TTL" : N`},
	{regexp.MustCompile(`"ts":"[^"]*"`), `"ts":"TIME"`},
	{regexp.MustCompile(`etcd-endpoints://0x[0-9a-f]+/`), "etcd-endpoints://"},
}

// Within a table: a column is as wide as its widest cell, and the last numbers of a status are
// raft's.
var tableRules = []rule{
	{regexp.MustCompile(`-+`), "-"},
	{regexp.MustCompile(` +`), " "},
}

// In lines of endpoint status and hashkv, and in their tables, the numbers are raft's and hashes.
var statusNumber = rule{regexp.MustCompile(`([,|] )\d+( [|]|,|\n)`), "${1}N${2}"}

func mask(said string, names map[string]string, words []string) string {
	if tmp := names["TMP"]; tmp != "" {
		said = strings.ReplaceAll(said, tmp, "TMP")
	}
	for _, rule := range rules {
		said = rule.pattern.ReplaceAllString(said, rule.with)
	}
	if slices.Contains(words, "table") {
		for _, rule := range tableRules {
			said = rule.pattern.ReplaceAllString(said, rule.with)
		}
	}
	if len(words) > 1 && words[0] == "endpoint" {
		// Twice, for neighbours share a comma.
		for range 2 {
			said = statusNumber.pattern.ReplaceAllString(said, statusNumber.with)
		}
	}
	return said
}
