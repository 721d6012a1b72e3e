package vmm

import "os"

// threadName is the calling thread's own name file.
const threadName = "/proc/thread-self/comm"

// nameThread names the calling thread, for ps and top, and gives what takes
// the name back. It is a courtesy: errors do not matter.
func nameThread(name string) (restore func()) {
	before, err := os.ReadFile(threadName)
	if err != nil || os.WriteFile(threadName, []byte(name), 0) != nil {
		return func() {}
	}
	return func() { os.WriteFile(threadName, before, 0) }
}
