package server

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrape reads /metrics and checks its format. It returns values by their names with labels.
func scrape(t testing.TB, url string) map[string]float64 {
	t.Helper()
	answer, body := get(t, url+"/metrics")
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	sample := regexp.MustCompile(`^([a-z][a-z0-9_]*)(\{[a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*\})? (\S+)$`)
	comment := regexp.MustCompile(`^# (HELP|TYPE) ([a-z][a-z0-9_]*) (.+)$`)
	values, kinds := map[string]float64{}, map[string]string{}
	last := ""
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSuffix(line, "\n")
		if c := comment.FindStringSubmatch(line); c != nil {
			if c[1] == "HELP" && kinds[c[2]] != "" {
				t.Errorf("%s is described twice", c[2])
			}
			if c[1] == "TYPE" {
				kinds[c[2]], last = c[3], c[2]
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no sample: %q", line)
		}
		family := m[1]
		if kinds[last] == "histogram" {
			family = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(family, "_bucket"), "_sum"), "_count")
		}
		if family != last {
			t.Errorf("%s stands under %s", m[1], last)
		}
		if (kinds[last] == "counter") != strings.HasSuffix(family, "_total") {
			t.Errorf("%s is a %s", family, kinds[last])
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil || value < 0 {
			t.Errorf("%q: %v", line, err)
		}
		if _, twice := values[m[1]+m[2]]; twice {
			t.Errorf("twice: %s", m[1]+m[2])
		}
		values[m[1]+m[2]] = value
	}
	return values
}

func TestMetrics(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 10000, false})
	_, url := serveFake(t, f, nil)
	get(t, url+"/v1/tensors/t")
	get(t, url+"/v1/tensors/t", "Range: bytes=0-99")
	do(t, "HEAD", url+"/v1/tensors/t")
	get(t, url+"/v1/tensors/none")
	do(t, "BREW", url+"/v1/tensors/t")
	do(t, "STEEP", url+"/v1/tensors/t")
	get(t, url+"/favicon.ico")
	_, groups := get(t, url+"/v1/groups")
	const p = "df11_service_"
	var m map[string]float64
	await(t, "the figures", func() bool {
		m = scrape(t, url)
		return m[p+`requests_total{route="groups",method="GET",code="200"}`] == 1
	})
	for name, want := range map[string]float64{
		`requests_total{route="tensor",method="GET",code="200"}`:   1,
		`requests_total{route="tensor",method="GET",code="206"}`:   1,
		`requests_total{route="tensor",method="HEAD",code="200"}`:  1,
		`requests_total{route="tensor",method="GET",code="404"}`:   1,
		`requests_total{route="tensor",method="other",code="405"}`: 2,
		`requests_total{route="other",method="GET",code="404"}`:    1,
		`body_bytes_total{route="groups"}`:                         float64(len(groups)),
		`ended_total{route="tensor",end="complete"}`:               6,
		`ended_total{route="tensor",end="client_gone"}`:            0,
		`request_seconds_count{route="tensor"}`:                    6,
		`request_seconds_bucket{route="tensor",le="+Inf"}`:         6,
		`requests_in_flight`:                                       1,
		`requests_waiting`:                                         0,
		`buffers_used`:                                             0,
		`buffers`:                                                  4,
		`buffer_bytes`:                                             4096,
		`decodes_running`:                                          0,
		`state{state="ready"}`:                                     1,
		`state{state="failed"}`:                                    0,
		`hashes_total`:                                             1,
		`hash_failures_total`:                                      0,
		`panics_total`:                                             0,
		`rejected_total`:                                           0,
		`open_attempts_total`:                                      1,
		`connections{state="active"}`:                              1,
		`connections_evicted_total`:                                0,
	} {
		if got, ok := m[p+name]; !ok || got != want {
			t.Errorf("%s is %v (%v), not %v", name, got, ok, want)
		}
	}
	if m[p+`body_bytes_total{route="tensor"}`] < 10100 || m[p+"goroutines"] < 2 ||
		m[p+"resident_memory_bytes"] < 1<<20 {
		t.Errorf("%v", m)
	}
	for _, name := range []string{"df11_models_open", "df11_host_decodes_total", `df11_errors_total{by="file"}`} {
		if _, ok := m[name]; !ok {
			t.Errorf("the library's %s is missing", name)
		}
	}
}

// The buckets of a histogram are cumulative, and each duration is in the first that it fits.
func TestHistogram(t *testing.T) {
	var m metrics
	f := newFake(t, fakeTensor{"t", 2, false})
	s, _ := serveFake(t, f, nil)
	for _, bound := range bounds {
		m.request(routeTensor, "GET", &recorder{status: 200}, seconds(bound))
		m.request(routeTensor, "GET", &recorder{status: 200}, seconds(bound)+1)
	}
	for class, n := range m.durations[routeTensor].classes {
		want := uint64(2)
		if class == 0 || class == len(bounds) {
			want = 1
		}
		if n != want {
			t.Errorf("class %d has %d", class, n)
		}
	}
	s.metrics.lock.Lock()
	s.metrics.durations = m.durations
	s.metrics.lock.Unlock()
	var text strings.Builder
	s.writeMetrics(&text)
	count := 0
	for line := range strings.Lines(text.String()) {
		var value int
		if rest, ok := strings.CutPrefix(line, `df11_service_request_seconds_bucket{route="tensor",le="`); ok {
			if _, err := fmt.Sscanf(rest[strings.Index(rest, "}")+1:], "%d", &value); err != nil || value < count {
				t.Errorf("%v: %d after %d", err, value, count)
			}
			count = value
		}
	}
	if count != 2*len(bounds) {
		t.Errorf("%d in all", count)
	}
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }
