// Two ACPI power meters under the names that NVIDIA Grace gives its own, for a virtual machine: QEMU hands this table to the
// kernel, whose driver acpi_power_meter shows them. Their power is known at each moment, so their energy is as well.
DefinitionBlock ("", "SSDT", 2, "DLPM", "METERS", 1)
{
    Scope (\_SB)
    {
        // In mW: 50 W, and 1 W more with each second of the timer, which counts 100 ns; after 100 s from the beginning.
        Method (DLMW)
        {
            Divide (Timer, 10000000, , Local0)
            Divide (Local0, 100, Local1)
            Return (Add (50000, Multiply (Local1, 1000)))
        }

        Device (DLP0)
        {
            Name (_HID, "ACPI000D")
            Name (_UID, 0)
            Name (_PMD, Package () {})
            Method (_STA) { Return (0x0F) }
            // Measures, in mW, to 5 %, every 50 ms, as a mean of 50 ms to 1 s; no limits; model, serial number, name.
            Method (_PMC)
            {
                Return (Package () { 1, 0, 0, 5000, 50, 50, 1000, 0xFFFFFFFF, 0, 0, 0, "Grace", "0", "CPU Power Socket 0" })
            }
            Method (_PMM) { Return (DLMW ()) }
            Method (_GAI) { Return (50) }
            Method (_PAI, 1) { Return (0) }
        }

        Device (DLP1)
        {
            Name (_HID, "ACPI000D")
            Name (_UID, 1)
            Name (_PMD, Package () {})
            Method (_STA) { Return (0x0F) }
            Method (_PMC)
            {
                Return (Package () { 1, 0, 0, 5000, 50, 50, 1000, 0xFFFFFFFF, 0, 0, 0, "Grace", "0", "Module Power Socket 0" })
            }
            Method (_PMM) { Return (Multiply (DLMW (), 2)) }
            Method (_GAI) { Return (50) }
            Method (_PAI, 1) { Return (0) }
        }
    }
}
