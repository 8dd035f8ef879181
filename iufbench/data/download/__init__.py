"""Download, verification and extraction of official archives."""
