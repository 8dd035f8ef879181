"""What everything else stands on: errors, files, fields, progress, seeds, devices, memory."""
