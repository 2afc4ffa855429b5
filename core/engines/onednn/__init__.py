"""The oneDNN engine: a rank's arithmetic on a CPU, done by oneDNN, each value in the layout that is fastest there."""
