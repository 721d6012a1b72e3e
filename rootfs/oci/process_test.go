package oci

const childVariable = "OCI_TEST_CHILD"

func child() int { return 0 }
