"""From a graph to a net that runs: layers with their blobs, params in one arena, weights in and out."""
