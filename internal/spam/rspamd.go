package spam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"time"
)

// rspamd asks by HTTP: POST /checkv2, answered in JSON.
type rspamd struct {
	cfg    Config
	client *http.Client
}

func newRspamd(cfg Config, dial func(ctx context.Context) (net.Conn, error)) *rspamd {
	t := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:     true,
		MaxConnsPerHost:        cfg.MaxChecks,
		MaxIdleConns:           cfg.MaxChecks,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxFields,
	}
	return &rspamd{cfg: cfg, client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// reply is what is read of an answer.
type reply struct {
	Skipped  bool     `json:"is_skipped"`
	Score    *float64 `json:"score"`
	Required *float64 `json:"required_score"`
	Action   string   `json:"action"`
	Error    string   `json:"error"`
	Symbols  map[string]struct {
		Score float64 `json:"score"`
	} `json:"symbols"`
}

func (s *rspamd) ask(ctx context.Context, m Message) (Result, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://rspamd/checkv2", io.NopCloser(m.Body.NewReader()))
	if err != nil {
		return Result{}, err
	}
	req.ContentLength = m.Body.Size()
	set := func(name, value string) {
		if v, ok := safe(value); ok && v != "" {
			req.Header.Set(name, v)
		}
	}
	set("Password", s.cfg.Password)
	set("Queue-Id", m.Reference)
	set("Deliver-To", m.User)
	req.Header.Set("User-Agent", "lazaret")
	resp, err := s.client.Do(req)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = resp.Body.Close() }() // the answer was read, or there is none
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return Result{}, err
	}
	if len(body) > maxReply {
		return Result{}, errors.New("the answer is too long")
	}
	return readRspamd(resp.StatusCode, body)
}

// readRspamd reads an answer.
func readRspamd(status int, body []byte) (Result, error) {
	var a reply
	err := json.Unmarshal(body, &a)
	switch {
	case status != http.StatusOK:
		return Result{}, fmt.Errorf("status %d: %.100q", status, a.Error)
	case err != nil:
		return Result{}, fmt.Errorf("the answer is no JSON that rspamd would give: %w", err)
	case a.Error != "":
		return Result{}, fmt.Errorf("it said %.100q", a.Error)
	case a.Skipped && (a.Action == "" || a.Action == "no action"): // it says so, too, where it was sure before the rules were tried
		return Result{Skipped: "rspamd skips it"}, nil
	case a.Score == nil || a.Required == nil || math.Abs(*a.Score) > 1e6 || math.Abs(*a.Required) > 1e6:
		return Result{}, errors.New("the answer has no score")
	}
	r := Result{Score: *a.Score, Required: *a.Required, Symbols: symbols(slices.Sorted(maps.Keys(a.Symbols)))}
	switch a.Action {
	case "reject", "add header", "rewrite subject":
		r.State = Spam
	case "no action", "greylist", "soft reject":
		r.State = Ham
	default:
		return Result{}, fmt.Errorf("the action %.50q is not known", a.Action)
	}
	return r, nil
}
