//go:build race

package tf_test

func init() { raceDetector = true }
