// Package logs makes the logger of podnet's programs. What is logged is left to them.
package logs

import (
	"fmt"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// Formats of a log: Text is for people, JSON for programs.
const (
	Text = "text"
	JSON = "json"
)

// Options say how a program logs.
type Options struct {
	// Level is debug, info, warn or error.
	Level string
	// Format is Text or JSON.
	Format string
}

// Flags is what flags can be defined on.
type Flags interface {
	StringVar(p *string, name, value, usage string)
}

// Define defines --log-level and --log-format.
func (o *Options) Define(flags Flags) {
	flags.StringVar(&o.Level, "log-level", "info", "what is logged: debug, info, warn or error")
	flags.StringVar(&o.Format, "log-format", JSON, "how it is logged: json, or text for people")
}

// New returns the logger. No entry has a stack trace: an error names what failed.
func (o *Options) New(more ...ctrlzap.Opts) (logr.Logger, error) {
	level, err := zapcore.ParseLevel(o.Level)
	if err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level: %w", err)
	}
	times := func(c *zapcore.EncoderConfig) { c.EncodeTime = zapcore.RFC3339TimeEncoder }
	encoder := ctrlzap.JSONEncoder(times)
	switch o.Format {
	case JSON:
	case Text:
		encoder = ctrlzap.ConsoleEncoder(times, func(c *zapcore.EncoderConfig) { c.EncodeLevel = zapcore.CapitalLevelEncoder })
	default:
		return logr.Logger{}, fmt.Errorf("--log-format: %q is neither %s nor %s", o.Format, JSON, Text)
	}
	return ctrlzap.New(append([]ctrlzap.Opts{ctrlzap.Level(level), ctrlzap.StacktraceLevel(zapcore.PanicLevel), encoder}, more...)...), nil
}
