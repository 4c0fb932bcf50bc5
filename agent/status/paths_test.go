package status

import (
	"net/netip"
	"testing"

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
		"silent":    {choice(func(c *model.PathChoice) { c.Proof.Silent = true }), metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown, "b", false, false},
		"down":      {choice(func(c *model.PathChoice) { c.Path = model.PathDown }), metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown, "b", false, false},
		"new":       {choice(func(c *model.PathChoice) { c.Proof = model.Proof{Standing: model.Unproven, New: true} }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "only begun", false, false},
		"forced":    {choice(func(c *model.PathChoice) { c.Forced, c.Proof.Standing = true, model.Failed }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "", false, false},
		"preferred": {choice(func(c *model.PathChoice) { c.Message = "The overlay is taken." }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "The overlay is taken.", false, true},
		"reduced":   {choice(func(c *model.PathChoice) { c.Proof.MTU, c.Message = 1400, "Smaller." }), metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven, "", true, true},
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
	g.Expect(meta.IsStatusConditionFalse(st.Conditions, podnetv1alpha1.ConditionClear)).To(gomega.BeTrue())
}
