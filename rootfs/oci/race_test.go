//go:build race

package oci

// raceDetector multiplies what a process takes.
const raceDetector = true
