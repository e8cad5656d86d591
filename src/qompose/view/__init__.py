"""What people look at: pictures, video, progress."""
