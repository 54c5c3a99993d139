package dist_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"sigs.k8s.io/yaml"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/internal/trouble"
	"tulle/ip"
)

// busy is a daemon with something to tell in every metric.
type busy struct{}

func (busy) Status() agent.Status                             { return busy{}.Summary() }
func (busy) Alive() error                                     { return nil }
func (busy) Wanted(context.Context) (hostfiles.Wanted, error) { return hostfiles.Wanted{}, nil }
func (busy) Summary() agent.Status {
	return agent.Status{
		Networks: []fabric.Status{{Expiry: time.Unix(1, 0), Lease: &fabric.LeaseStatus{Remaining: time.Hour}}},
		Probes:   &agent.ProbeStatus{},
		FastPath: &agent.FastPathStatus{FastPathState: ip.FastPathState{On: true, Refused: map[string]uint64{"size": 1}, Raised: map[string]uint64{"links": 1}}},
	}
}

// labelsOf reads of each metric that tulled tells what labels it has.
func labelsOf(t *testing.T) map[string]map[string]bool {
	t.Helper()
	w := httptest.NewRecorder()
	api.Health(busy{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	sample, label := regexp.MustCompile(`^([a-z_]+)(\{.*\})? `), regexp.MustCompile(`([a-z_]+)="`)
	labels := map[string]map[string]bool{"up": {}} // Prometheus' own
	for line := range strings.Lines(w.Body.String()) {
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		labels[m[1]] = map[string]bool{"job": true, "instance": true}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			labels[m[1]][l[1]] = true
		}
	}
	if !labels["tulle_trouble"]["severity"] {
		t.Fatalf("tulled tells %v, want tulle_trouble with a severity among it", slices.Sorted(maps.Keys(labels)))
	}
	return labels
}

// checkExpr wants an expression that Prometheus reads, about metrics and labels that there are.
func checkExpr(t *testing.T, labels map[string]map[string]bool, expr string) {
	t.Helper()
	e, err := metricsql.Parse(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return
	}
	selectors := 0
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		if m, ok := e.(*metricsql.MetricExpr); ok {
			for _, filters := range m.LabelFilterss {
				checkSelector(t, labels, expr, filters)
				selectors++
			}
		}
	})
	if selectors == 0 {
		t.Errorf("%s is about no metric", expr)
	}
}

// checkSelector wants what one part of an expression selects to be there. The first label is the metric's name.
func checkSelector(t *testing.T, labels map[string]map[string]bool, expr string, filters []metricsql.LabelFilter) {
	t.Helper()
	name := filters[0].Value
	if filters[0].Label != "__name__" || labels[name] == nil {
		t.Errorf("%s: tulled has no metric %s", expr, name)
		return
	}
	for _, f := range filters[1:] {
		if f.Label != "job" && !labels[name][f.Label] {
			t.Errorf("%s: %s has no label %s", expr, name, f.Label)
		}
		if severities := []trouble.Severity{trouble.Error, trouble.Warning, trouble.Advice}; f.Label == "severity" && !slices.Contains(severities, trouble.Severity(f.Value)) {
			t.Errorf("%s: there is no severity %q", expr, f.Value)
		}
	}
}

func TestAlerts(t *testing.T) {
	labels := labelsOf(t)
	text, err := os.ReadFile("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           map[string]string
				Annotations      map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if !regexp.MustCompile(`^Tulled?[A-Z][A-Za-z]+$`).MatchString(r.Alert) || seen[r.Alert] {
				t.Errorf("alert %q: want a name of its own", r.Alert)
			}
			seen[r.Alert] = true
			checkExpr(t, labels, r.Expr)
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: for: %v", r.Alert, err)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has the severity %q", r.Alert, s)
			}
			for _, what := range []string{"summary", "description"} {
				text := r.Annotations[what]
				if text == "" || strings.Count(text, "{{") != strings.Count(text, "}}") {
					t.Errorf("%s has the %s %q", r.Alert, what, text)
				}
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("there are %d alerts, want ten and more", len(seen))
	}
}

func TestDashboard(t *testing.T) {
	labels := labelsOf(t)
	text, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	type position struct{ X, Y, W, H int }
	var file struct {
		Panels []struct {
			ID                 int
			Title, Description string
			GridPos            position
			FieldConfig        struct{ Defaults struct{ Unit string } }
			Targets            []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for i, p := range file.Panels {
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d %q lacks a title, a description, a unit, a target or a number of its own", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range file.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H || a.X+a.W > 24 {
				t.Errorf("panels %q and %q overlap, or leave the page", p.Title, q.Title)
			}
		}
		for _, target := range p.Targets {
			checkExpr(t, labels, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
		}
	}
	if len(ids) < 10 {
		t.Errorf("there are %d panels, want ten and more", len(ids))
	}
}
