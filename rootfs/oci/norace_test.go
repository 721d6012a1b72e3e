//go:build !race

package oci

const raceDetector = false
