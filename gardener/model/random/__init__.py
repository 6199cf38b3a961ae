"""Models of real shapes with random weights, for tests of size and speed where no weights can be
had."""
