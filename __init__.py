"""TelcoLoc: telecom geolocation for QGIS. QGIS calls `classFactory`; nothing else happens on import."""


def classFactory(iface):  # noqa: ANN001, ANN201, N802 - QGIS dictates name and signature; iface is None in qgis_process
    """Return the plugin object (`iface` is None under qgis_process)."""
    from .telcoloc_qgis.plugin import TelcoLocPlugin

    return TelcoLocPlugin(iface)
