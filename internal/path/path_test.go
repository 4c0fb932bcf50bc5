package path

import (
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

func TestChoose(t *testing.T) {
	const noRoute, noVXLAN = "this node has no route to the endpoint", "this node's kernel cannot make VXLAN devices (module vxlan)"
	for name, c := range map[string]struct {
		want    model.Mode
		reach   Reach
		path    model.Path
		because []string
	}{
		"routed where possible":                    {model.ModeRouted, Reach{}, model.PathRouted, nil},
		"routed needs no overlay":                  {model.ModeRouted, Reach{OverlayObstacle: noVXLAN}, model.PathRouted, nil},
		"routed falls back to overlay":             {model.ModeRouted, Reach{RoutedObstacle: noRoute}, model.PathOverlay, []string{noRoute}},
		"routed with nothing possible":             {model.ModeRouted, Reach{noRoute, noVXLAN}, model.PathDown, []string{noRoute, noVXLAN}},
		"overlay where possible":                   {model.ModeOverlay, Reach{}, model.PathOverlay, nil},
		"overlay is never routed instead":          {model.ModeOverlay, Reach{OverlayObstacle: noVXLAN}, model.PathDown, []string{"module vxlan"}},
		"auto is overlay, as nothing is proven":    {model.ModeAuto, Reach{}, model.PathOverlay, nil},
		"auto is overlay without a route":          {model.ModeAuto, Reach{RoutedObstacle: noRoute}, model.PathOverlay, nil},
		"auto is routed where there is no overlay": {model.ModeAuto, Reach{OverlayObstacle: noVXLAN}, model.PathRouted, []string{noVXLAN}},
		"auto with nothing possible":               {model.ModeAuto, Reach{noRoute, noVXLAN}, model.PathDown, []string{noRoute, noVXLAN}},
		"no mode is auto":                          {"", Reach{}, model.PathOverlay, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path, why := Choose(c.want, c.reach)
			if path != c.path {
				t.Errorf("path %s, want %s", path, c.path)
			}
			if len(c.because) == 0 && why != "" {
				t.Errorf("gives the reason %q for what was asked", why)
			}
			for _, b := range c.because {
				if !strings.Contains(why, b) || !strings.HasSuffix(why, ".") {
					t.Errorf("reason %q is no sentence that names %q", why, b)
				}
			}
		})
	}
}
