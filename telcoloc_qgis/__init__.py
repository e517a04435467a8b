"""What only QGIS needs: plugin, provider, base algorithm, layers ⇄ arrays, progress bridge, styles."""
