package status

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestConditionsSayWhatIsKnownOfPaths(t *testing.T) {
	choice := func(change func(*model.PathChoice)) model.PathChoice {
		c := model.PathChoice{Node: "b", Path: model.PathRouted, Proof: model.Proof{Standing: model.Proven}}
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		choice         model.PathChoice
		proven         metav1.ConditionStatus
		reason, words  string
		reduced, named bool
	}{
		"proven":    {choice(func(*model.PathChoice) {}), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "by every path", false, false},
		"suspect":   {choice(func(c *model.PathChoice) { c.Proof.Standing = model.Suspect }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "", false, false},
		"unproven":  {choice(func(c *model.PathChoice) { c.Proof.Standing = model.Unproven }), metav1.ConditionFalse, podnetv1alpha1.ReasonUnproven, "b (1 paths)", false, false},
		"failed":    {choice(func(c *model.PathChoice) { c.Proof.Standing = model.Failed }), metav1.ConditionFalse, podnetv1alpha1.ReasonUnproven, "b", false, false},
		"silent":    {choice(func(c *model.PathChoice) { c.Proof.Silent = true }), metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown, "b", false, true},
		"unheard":   {choice(func(c *model.PathChoice) { c.Proof.Unheard = true }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "For some seconds none has come back from b", false, true},
		"agentless": {choice(func(c *model.PathChoice) { c.Proof.Silent, c.NodeSilent = true, true }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "from b (1 paths), whose agents do not respond", false, true},
		"cut off":   {choice(func(c *model.PathChoice) { c.Path, c.NodeSilent = model.PathDown, true }), metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown, "b", false, false},
		"other": {choice(func(c *model.PathChoice) {
			c.Path, c.Diverges, c.Reason, c.Message = model.PathOverlay, true, model.PathSecond, "The overlay is taken."
		}), metav1.ConditionTrue, podnetv1alpha1.ReasonOtherPath, "The overlay is taken.", false, true},
		"down":      {choice(func(c *model.PathChoice) { c.Path = model.PathDown }), metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown, "b", false, false},
		"new":       {choice(func(c *model.PathChoice) { c.Proof = model.Proof{Standing: model.Unproven, New: true} }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "only begun", false, false},
		"forced":    {choice(func(c *model.PathChoice) { c.Forced, c.Proof.Standing = true, model.Failed }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "", false, false},
		"preferred": {choice(func(c *model.PathChoice) { c.Reason, c.Message = model.PathSecond, "The overlay is taken." }), metav1.ConditionTrue, podnetv1alpha1.ReasonSecondPath, "The overlay is taken.", false, true},
		"reduced":   {choice(func(c *model.PathChoice) { c.Proof.MTU, c.Reason, c.Message = 1400, model.PathSmall, "Smaller." }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := gomega.NewWithT(t)
			st := Build(Report{Plan: model.Plan{
				Blocks: []model.Block{{CIDR: netip.MustParsePrefix("10.244.0.0/24")}}, Paths: []model.PathChoice{c.choice},
			}}, nil, 1, "v")
			proven := meta.FindStatusCondition(st.Conditions, podnetv1alpha1.ConditionPathsProven)
			g.Expect(proven.Status).To(gomega.Equal(c.proven), proven.Message)
			g.Expect(proven.Reason).To(gomega.Equal(c.reason))
			g.Expect(proven.Message).To(gomega.ContainSubstring(c.words))
			g.Expect(meta.IsStatusConditionTrue(st.Conditions, podnetv1alpha1.ConditionPathMTUReduced)).To(gomega.Equal(c.reduced))
			g.Expect(st.Paths.Exceptions).To(gomega.HaveLen(map[bool]int{true: 1}[c.named]))
		})
	}
}

func TestNothingIsSaidOfPathsWhereThereIsNoBlock(t *testing.T) {
	g := gomega.NewWithT(t)
	before := []metav1.Condition{
		{Type: podnetv1alpha1.ConditionPathsProven, Status: metav1.ConditionTrue}, {Type: podnetv1alpha1.ConditionPathMTUReduced, Status: metav1.ConditionFalse},
	}
	st := Build(Report{Removed: true}, before, 1, "v")
	for _, c := range before {
		g.Expect(meta.FindStatusCondition(st.Conditions, c.Type)).To(gomega.BeNil(), c.Type)
	}
}

func TestWrongChecksumsAreAFinding(t *testing.T) {
	g := gomega.NewWithT(t)
	r := Report{Plan: model.Plan{Paths: []model.PathChoice{{Node: "b", Path: model.PathRouted, Corrupter: "vxpodnet4"}}}}
	st := Build(r, nil, 1, "v")
	g.Expect(st.Findings).To(gomega.HaveLen(1))
	g.Expect(st.Findings[0].Message).To(gomega.ContainSubstring("`ethtool -K vxpodnet4 tx off`"))
	g.Expect(meta.IsStatusConditionFalse(st.Conditions, podnetv1alpha1.ConditionHostUnobstructed)).To(gomega.BeTrue())
}

// Blocks that nothing comes back from count as down, and as nothing else.
func TestBlocksThatDoNotAnswerAreDown(t *testing.T) {
	g := gomega.NewWithT(t)
	proven := model.Proof{Standing: model.Proven}
	unheard := model.Proof{Standing: model.Suspect, Unheard: true}
	r := Report{InForce: true, Plan: model.Plan{NetworkGeneration: 3, Paths: []model.PathChoice{
		{Path: model.PathRouted, Proof: proven}, {Path: model.PathOverlay, Proof: proven, Diverges: true},
		{Path: model.PathRouted, Proof: unheard}, {Path: model.PathDown, Diverges: true},
		{PathQuestion: model.PathQuestion{Forced: true}, Path: model.PathOverlay, Proof: unheard},
	}}}
	got := paths(r)
	g.Expect([]int32{*got.Routed, *got.Overlay, *got.Down, *got.Proven, *got.Diverging}).To(gomega.Equal([]int32{1, 2, 2, 3, 2}))
	g.Expect(got.NetworkGeneration).To(gomega.BeEquivalentTo(3))
	r.Refused = true
	g.Expect(paths(r).Diverging).To(gomega.BeNil(), "what the kernel refused is not in force")
}

// That paths fall back to others that work is a transition, although the condition stays True.
func TestOtherPathsAreATransition(t *testing.T) {
	g := gomega.NewWithT(t)
	report := func(c model.PathChoice) Report {
		return Report{Plan: model.Plan{Blocks: []model.Block{{CIDR: netip.MustParsePrefix("10.244.0.0/24")}}, Paths: []model.PathChoice{c}}}
	}
	proven := model.Proof{Standing: model.Proven}
	long := metav1.NewTime(time.Unix(1_700_000_000, 0))
	before := Build(report(model.PathChoice{Node: "b", Path: model.PathRouted, Proof: proven}), nil, 1, "v").Conditions
	for i := range before {
		before[i].LastTransitionTime = long
	}
	after := Build(report(model.PathChoice{Node: "b", Path: model.PathOverlay, Proof: proven, Diverges: true, Message: "Fell back."}), before, 1, "v")
	c := meta.FindStatusCondition(after.Conditions, podnetv1alpha1.ConditionPathsProven)
	g.Expect(c.Status).To(gomega.Equal(metav1.ConditionTrue))
	g.Expect(c.LastTransitionTime.After(long.Time)).To(gomega.BeTrue())
	g.Expect(after.Summary.Problem).To(gomega.Equal(podnetv1alpha1.ReasonOtherPath))
}

func TestPathChangesAreTold(t *testing.T) {
	g := gomega.NewWithT(t)
	at := func(block, node string, path model.Path, diverges bool, why string) model.PathChoice {
		return model.PathChoice{Block: netip.MustParsePrefix(block), Node: node, Path: path, Diverges: diverges, Message: why}
	}
	changes := PathChanges(
		[]model.PathChoice{at("10.244.1.0/24", "b", model.PathRouted, false, ""), at("10.244.2.0/24", "c", model.PathRouted, false, ""), at("10.244.3.0/24", "d", model.PathRouted, false, "")},
		[]model.PathChoice{at("10.244.1.0/24", "b", model.PathOverlay, true, "It failed."), at("10.244.2.0/24", "e", model.PathOverlay, true, ""), at("10.244.3.0/24", "d", model.PathRouted, false, ""), at("10.244.4.0/24", "f", model.PathOverlay, false, "")},
	)
	g.Expect(changes).To(gomega.HaveLen(1), "a block that came, went or moved is no change")
	g.Expect(Divergent(changes)).To(gomega.BeTrue())
	g.Expect(pathsNote(changes, 2)).To(gomega.Equal(
		"The path of packets has changed: to 10.244.1.0/24 of node b it was routed and is overlay (It failed.); and 2 more."))
}
