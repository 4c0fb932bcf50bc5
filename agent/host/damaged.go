package host

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// FindingDamagedState says that files of the agent's on the node could not be read and were set aside.
const FindingDamagedState = "DamagedState"

// damagedFindings looks for files in the agent's folder, and those below, that were set aside.
func (h *Host) damagedFindings() ([]model.Finding, error) {
	var damaged []string
	err := filepath.WalkDir(h.cfg.StateDir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, model.DamagedSuffix) {
			damaged = append(damaged, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			// It went meanwhile.
			return nil
		}
		return err
	})
	if err != nil || len(damaged) == 0 {
		return nil, err
	}
	return []model.Finding{finding(FindingDamagedState,
		"Files in which the agent keeps what outlives it could not be read and were set aside (%s): records of attachments go with their "+
			"pods, and what others said is lost, such as the sysctls' former values for an uninstall. Look at them, and delete them.",
		shorten(damaged))}, nil
}
