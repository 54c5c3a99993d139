//go:build linux

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// counters are figures in Prometheus' text format, by name and labels.
type counters map[string]float64

// scrape reads what a server counts.
func scrape(ctx context.Context, url string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (counters, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read metrics of %s: %s", url, response.Status)
	}
	return parseCounters(response.Body)
}

func parseCounters(r io.Reader) (counters, error) {
	c := counters{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
		c[line[:space]] = value
	}
	return c, lines.Err()
}

// since returns how much the counters have grown.
func (c counters) since(earlier counters) counters {
	grown := counters{}
	for name, value := range c {
		if d := value - earlier[name]; d != 0 {
			grown[name] = d
		}
	}
	return grown
}

// by sums up the counters of a name by the value of one of their labels.
func (c counters) by(name, label string) map[string]float64 {
	sums := map[string]float64{}
	for full, value := range c {
		labels, ok := strings.CutPrefix(full, name+"{")
		if !ok {
			continue
		}
		for pair := range strings.SplitSeq(strings.TrimSuffix(labels, "}"), ",") {
			if quoted, ok := strings.CutPrefix(pair, label+"="); ok {
				sums[strings.Trim(quoted, `"`)] += value
			}
		}
	}
	return sums
}
