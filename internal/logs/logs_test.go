package logs

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func TestErrorsAreLoggedInOneLine(t *testing.T) {
	for format, begins := range map[string]string{Text: "20", JSON: `{"level":"error","ts":"20`} {
		var out bytes.Buffer
		o := Options{Level: "info", Format: format}
		logger, err := o.New(ctrlzap.WriteTo(&out))
		if err != nil {
			t.Fatal(err)
		}
		logger.Error(errors.New("no more"), "pass failed", "node", "a")
		text := out.String()
		if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, begins) || strings.Contains(text, "stacktrace") ||
			!strings.Contains(text, "pass failed") || !strings.Contains(text, "no more") {
			t.Errorf("%s: %q", format, text)
		}
	}
}

func TestUnknownFormatsAndLevelsAreRefused(t *testing.T) {
	for _, o := range []Options{{Level: "info", Format: "xml"}, {Level: "loud", Format: JSON}} {
		if _, err := o.New(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
