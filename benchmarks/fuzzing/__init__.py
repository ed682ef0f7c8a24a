"""Parts of fuzz_videos.py: videos and their mutations, the judge that knows nothing of the reader, and the watched children."""
