package lifeline

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role makes the test binary the program that is killed.
const role = "PODNET_TEST_LIFELINE_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		process, err := play()
		fmt.Fprintln(os.Stdout, process, err)
		select {}
	}
	os.Exit(m.Run())
}

// play holds a lifeline, starts a program that does not end by itself, and returns its number.
func play() (int, error) {
	if _, err := Hold(); err != nil {
		return 0, err
	}
	child := exec.Command("sleep", "3600")
	err := child.Start()
	return child.Process.Pid, err
}

func TestProgramsEndWithTheTestThatIsKilled(t *testing.T) {
	killed := exec.Command(os.Args[0])
	killed.Env = append(os.Environ(), role+"=killed")
	out, err := killed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var child int
	if _, scan := fmt.Sscanf(line, "%d <nil>", &child); err != nil || scan != nil {
		t.Fatalf("it says %q: %v, %v", line, err, scan)
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // It was killed.
	for deadline := time.Now().Add(time.Minute); runs(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("the program runs on")
		}
	}
}

// runs reports whether a program is there that has not ended.
func runs(process int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	return err == nil && !strings.Contains(string(status), ") Z ")
}

func TestProgramsOfOthersGoOn(t *testing.T) {
	other := exec.Command("sleep", "3600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	release, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if !runs(other.Process.Pid) {
		t.Error("a program that was started before is gone")
	}
}
