// Package path chooses the path that packets to another node's block take, out
// of the mode that the objects ask for and what is possible between the two
// nodes. It is the only place that knows what Auto means. How a path is put into
// routes is left to internal/plan, and finding out which mode is asked for too.
package path

import (
	"fmt"

	"github.com/podnet/podnet/internal/model"
)

// Reach says which paths are possible between this node and another node's block.
type Reach struct {
	// RoutedObstacle says why packets cannot be routed, as a clause that can
	// follow "because"; empty where they can.
	RoutedObstacle string
	// OverlayObstacle says the same of the overlay.
	OverlayObstacle string
}

// Choose returns the path to take and, where that is not what was asked for, a
// sentence that says why.
//
// Routed falls back to the overlay, which works wherever nodes reach each other.
// Overlay falls back to nothing: whoever asks for it may do so because the
// underlay must not see the pods' packets. Auto takes the overlay as long as
// nothing proves that a routed path works, and the routed path only where there
// is no overlay.
func Choose(want model.Mode, reach Reach) (model.Path, string) {
	routed, overlay := reach.RoutedObstacle == "", reach.OverlayObstacle == ""
	switch want {
	case model.ModeRouted:
		switch {
		case routed:
			return model.PathRouted, ""
		case overlay:
			return model.PathOverlay, fmt.Sprintf("The overlay is taken although Routed is asked for, because %s.",
				reach.RoutedObstacle)
		}
	case model.ModeOverlay:
		if overlay {
			return model.PathOverlay, ""
		}
		return model.PathDown, fmt.Sprintf("There is no path: Overlay is asked for, and it is impossible because %s.",
			reach.OverlayObstacle)
	default:
		switch {
		case overlay:
			return model.PathOverlay, ""
		case routed:
			return model.PathRouted, fmt.Sprintf("The routed path is taken unproven, because %s.", reach.OverlayObstacle)
		}
	}
	return model.PathDown, fmt.Sprintf("There is no path: the overlay is impossible because %s, and so is the routed path because %s.",
		reach.OverlayObstacle, reach.RoutedObstacle)
}
