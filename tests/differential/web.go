package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
)

// web asks what is served over plain HTTP on the port of the clients.
func (e *serial) web() error {
	gets := []string{"/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=NOSPACE&exclude=CORRUPT",
		"/health?exclude=X", "/livez", "/livez?verbose", "/readyz", "/readyz?verbose", "/readyz?verbose&exclude=data_corruption",
		"/readyz?exclude=nothing", "/livez/serializable_read", "/livez/none", "/readyz/data_corruption", "/readyz/linearizable_read",
		"/readyz/serializable_read", "/readyz/non_learner", "/nothing", "/version"}
	for _, path := range gets {
		if err := e.fetch(http.MethodGet, path); err != nil {
			return err
		}
	}
	for _, path := range []string{"/health", "/version", "/livez", "/readyz", "/nothing"} {
		if err := e.fetch(http.MethodPost, path); err != nil {
			return err
		}
	}
	return nil
}

func (e *serial) fetch(method, path string) error {
	_, err := e.agree(method+" "+path, func(ctx context.Context, side *side) (any, error) {
		request, err := http.NewRequestWithContext(ctx, method, side.url+path, nil)
		if err != nil {
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return nil, err
		}
		text := string(body)
		if strings.HasPrefix(text, "[") {
			// etcd's checks come in any order.
			lines := strings.SplitAfter(text, "\n")
			sort.Strings(lines)
			text = strings.Join(lines, "")
		}
		if path == "/version" && method == http.MethodGet {
			// The patch is each server's own.
			var versions map[string]string
			if err := json.Unmarshal(body, &versions); err != nil {
				return nil, err
			}
			versions["etcdserver"] = versions["etcdserver"][:strings.LastIndex(versions["etcdserver"], ".")]
			text = fmt.Sprint(versions)
		}
		return []string{fmt.Sprint(response.StatusCode), response.Header.Get("Content-Type"), response.Header.Get("Allow"), text}, nil
	})
	return err
}

func replaceID(text string, id uint64) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, fmt.Sprint(id), "own"), fmt.Sprintf("%x", id), "own")
}
