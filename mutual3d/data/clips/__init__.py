"""What a clip is made of: which frames of a video, and which pixels of a frame."""
