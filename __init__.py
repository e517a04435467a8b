"""TelcoLoc: telecom geolocation for QGIS. QGIS calls `classFactory`; nothing else happens on import."""


def classFactory(iface):  # noqa: ANN001, ANN201 - QGIS dictates the signature
    """Return the plugin object (`iface` is None under qgis_process)."""
    from .telcoloc_qgis.plugin import TelcoLocPlugin

    return TelcoLocPlugin(iface)
