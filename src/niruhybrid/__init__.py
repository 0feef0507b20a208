"""NiruHybrid: a real-time retrieval pipeline."""
